"""A run as a process of its own: killed, interrupted from the keyboard, started twice."""

import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from stage1_proposals.common.errors import UserError
from stage1_proposals.jobs.request import Job
from stage1_proposals.jobs.run import run
from stage1_proposals.shards import Manifest, verify_shard
from tests.shard_sets import GENERATORS, hashes, ignore, shard_files

ROOT = Path(__file__).parents[3]
SETTINGS: dict[str, Any] = {"images_per_shard": 5, "short_side": 160, "long_side": 320}
SHARDS = 23


@pytest.fixture
def many_images(image_folder: Path, tmp_path: Path) -> Path:
    """Enough images for a run of some seconds, three of them no images."""
    folder = tmp_path / "many"
    for copy in range(8):
        shutil.copytree(image_folder, folder / f"{copy:02d}")
    return folder


class Command:
    """`make proposals` of `SETTINGS` at work, alone in its session."""

    def __init__(self, images: Path, directory: Path, workers: int) -> None:
        settings = [part for key, value in SETTINGS.items() for part in (f"--{key.replace('_', '-')}", str(value))]
        where = ["--images", images, "--shards", directory, "--workers", str(workers)]
        self.directory = directory
        self.errors = directory.with_name("errors.txt")
        with self.errors.open("w") as errors:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "pipelines", "proposals", *where, *settings],
                cwd=ROOT,
                stdout=subprocess.DEVNULL,
                stderr=errors,
                start_new_session=True,
            )

    def wait_for_a_shard(self) -> None:
        """Until there is one more than now."""
        before = len(shard_files(self.directory))
        while len(shard_files(self.directory)) == before:
            assert self.process.poll() is None
            time.sleep(0.02)

    def clear_away(self) -> None:
        """Kill what the killed command left in its session; Ray's own processes end by themselves, a little later."""
        for entry in Path("/proc").iterdir():
            try:
                if entry.name.isdigit() and os.getsid(int(entry.name)) == self.process.pid:
                    os.kill(int(entry.name), signal.SIGKILL)
            except ProcessLookupError:
                continue
        self.process.wait()


@pytest.mark.parametrize("generator", GENERATORS)
def test_killed_with_shards_half_written_a_run_ends_with_the_same_shards(
    tmp_path: Path, make_job: Callable[..., Job], finished_by: Callable[[str], Path], generator: str
) -> None:
    """kill -9 in a process that shares this one's imports, when so many images are done."""
    directory, job = tmp_path / "shards", make_job(**GENERATORS[generator])
    for images in (6, 11):  # of 14 in 4 shards
        process = multiprocessing.get_context("fork").Process(target=run_until_killed, args=(job, directory, images))
        process.start()
        process.join(600)
        assert process.exitcode == -signal.SIGKILL
        assert not (shards := Manifest.read(directory)) or shards.entries is None
    assert shard_files(directory)
    run(job, directory, 0, ignore)
    assert not list(directory.glob(".*.tmp"))
    assert hashes(directory) == hashes(finished_by(generator))


def run_until_killed(job: Job, directory: Path, images: int) -> None:
    done = 0

    def count(new: int) -> None:
        nonlocal done
        done += new
        if done >= images:
            os.kill(os.getpid(), signal.SIGKILL)

    run(job, directory, 0, count)


def test_killed_again_and_again_a_run_ends_with_the_same_shards(
    many_images: Path, tmp_path: Path, make_job: Callable[..., Job]
) -> None:
    """kill -9 on the command at work, with Ray and without, each time going on at once."""
    directory, wait = tmp_path / "shards", random.Random(0)
    killed = []
    for workers in (2, 0, 0):
        before = len(shard_files(directory))
        command = Command(many_images, directory, workers)
        command.wait_for_a_shard()
        time.sleep(wait.random() / 4)  # within the next shards
        command.process.kill()
        command.process.wait()
        killed.append(command)
        assert before < len(shard_files(directory)) < SHARDS
        for path in shard_files(directory):
            verify_shard(path)
    run(make_job(many_images, **SETTINGS), directory, 0, ignore)
    for command in killed:
        command.clear_away()
    assert not list(directory.glob(".*.tmp"))
    run(make_job(many_images, **SETTINGS), tmp_path / "undisturbed", 0, ignore)
    assert hashes(directory) == hashes(tmp_path / "undisturbed")
    assert len(hashes(directory)) == SHARDS


def test_a_run_interrupted_from_the_keyboard_ends_with_one_line(many_images: Path, tmp_path: Path) -> None:
    """Ctrl-C reaches every process of the terminal, Ray's workers too."""
    command = Command(many_images, tmp_path / "shards", workers=1)
    command.wait_for_a_shard()
    os.killpg(command.process.pid, signal.SIGINT)
    assert command.process.wait(timeout=60) == 130
    errors = command.errors.read_text()
    assert "Traceback" not in errors
    assert errors.endswith("\nInterrupted; run the same command again to resume.\n")
    for path in shard_files(tmp_path / "shards"):
        verify_shard(path)


def test_a_second_process_on_a_directory_is_refused_and_the_first_goes_on(
    many_images: Path, tmp_path: Path, make_job: Callable[..., Job]
) -> None:
    directory = tmp_path / "shards"
    first = Command(many_images, directory, workers=0)
    first.wait_for_a_shard()
    first.process.send_signal(signal.SIGSTOP)  # however slow this process is, the first is still at work
    for changes in ({}, {"short_side": 96}):
        with pytest.raises(UserError, match=f"^{directory}: another run is writing there"):
            run(make_job(many_images, **SETTINGS | changes), directory, 0, ignore)
    first.process.send_signal(signal.SIGCONT)
    first.wait_for_a_shard()
    first.clear_away()
