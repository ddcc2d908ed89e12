"""Tasks and a job on real Ray actors: order, errors, deaths. Builders are defined in the tests, so that they travel."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import fsspec
import pytest

from stage1_proposals.common.errors import UserError
from stage1_proposals.jobs import workers as ray_pool
from stage1_proposals.jobs.request import Job
from stage1_proposals.jobs.run import run
from stage1_proposals.jobs.store import open_store, stored_manifest
from stage1_proposals.jobs.workers import MakeBuilder, ray, run_on_ray
from stage1_proposals.shards import ShardSet
from tests.shard_sets import hashes, shard_files

ROOT = Path(__file__).parents[3]
pytestmark = pytest.mark.usefixtures("ray_cluster")


@pytest.fixture(scope="module")
def ray_cluster() -> Iterator[None]:
    """A Ray cluster of two cores on this machine; runs in this process join it."""
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    yield
    ray.shutdown()


def ignore(_: int) -> None:
    pass


def builder(build: Callable[[int], dict[str, Any]], write: Callable[[int], None] = ignore) -> MakeBuilder:
    """A builder that reports ten images per shard."""

    class Builder:
        def compute(self, task: int, progress: Callable[[int], None]) -> Callable[[], dict[str, Any]]:
            result = build(task)
            progress(4)
            progress(6)

            def finish() -> dict[str, Any]:
                write(task)
                return result

            return finish

    return Builder


def test_results_come_in_the_shards_order(tmp_path: Path) -> None:
    def build(index: int) -> dict[str, Any]:
        (tmp_path / f"{os.getpid()}").touch()
        while len(list(tmp_path.iterdir())) < 2:  # the other worker, too
            time.sleep(0.05)
        time.sleep(0.05 * (5 - index))
        return {"index": index, "pid": os.getpid()}

    rows = run_on_ray(builder(build), range(5), 2, False, ignore)
    assert [row["index"] for row in rows] == [0, 1, 2, 3, 4]
    assert len({row["pid"] for row in rows} - {os.getpid()}) == 2


def test_more_actors_than_cores_do_not_wait_for_ever() -> None:
    rows = run_on_ray(builder(lambda index: {"index": index}), range(6), 5, False, ignore)
    assert [row["index"] for row in rows] == list(range(6))


def test_no_gpu_for_a_gpu_job_is_refused() -> None:
    with pytest.raises(UserError, match="no GPU"):
        run_on_ray(builder(lambda index: {}), range(1), 1, True, ignore)


def test_progress_is_reported_once_for_each_image() -> None:
    reported: list[int] = []
    run_on_ray(builder(lambda index: {}), range(4), 2, False, reported.append)
    assert sum(reported) == 40


def test_progress_is_reported_while_a_shard_is_computed(tmp_path: Path) -> None:
    class Builder:
        def compute(self, task: int, progress: Callable[[int], None]) -> Callable[[], dict[str, Any]]:
            progress(4)
            deadline = time.monotonic() + 60
            while not (tmp_path / "reported").exists():
                assert time.monotonic() < deadline, "four images are done, and nobody was told"
                time.sleep(0.05)
            progress(6)
            return lambda: {}

    reported: list[int] = []

    def report(count: int) -> None:
        reported.append(count)
        if sum(reported) == 4:
            (tmp_path / "reported").touch()

    run_on_ray(Builder, range(1), 1, False, report)
    assert sum(reported) == 10


def test_a_user_error_arrives_as_itself() -> None:
    def build(index: int) -> dict[str, Any]:
        raise UserError("the disk is full")

    with pytest.raises(UserError, match=r"^the disk is full$"):
        run_on_ray(builder(build), range(2), 2, False, ignore)


def test_a_fault_of_ours_arrives_with_its_traceback() -> None:
    def build(index: int) -> dict[str, Any]:
        raise ZeroDivisionError("in build")

    with pytest.raises(ZeroDivisionError, match="in build"):
        run_on_ray(builder(build), range(1), 1, False, ignore)


def test_a_user_error_while_writing_arrives_as_itself() -> None:
    def write(index: int) -> None:
        raise UserError("the disk is full")

    with pytest.raises(UserError, match=r"^the disk is full$"):
        run_on_ray(builder(lambda index: {}, write), range(1), 1, False, ignore)


def test_a_user_error_while_making_the_builder_arrives_as_itself() -> None:
    def make() -> Any:
        raise UserError("no such weights")

    with pytest.raises(UserError, match=r"^no such weights$"):
        run_on_ray(make, range(1), 1, False, ignore)


def test_workers_that_die_are_replaced_and_their_shards_done_again(tmp_path: Path) -> None:
    """Shard 0 dies before it is written, shard 2 when half its images are done; every image is counted once."""

    def die_once(name: str) -> None:
        if not (tmp_path / name).exists():
            (tmp_path / name).touch()
            os.kill(os.getpid(), 9)

    class Builder:
        def compute(self, task: int, progress: Callable[[int], None]) -> Callable[[], dict[str, Any]]:
            progress(4)
            if task == 2:
                die_once("computing")
            progress(6)

            def finish() -> dict[str, Any]:
                if task == 0:
                    die_once("writing")
                return {"index": task}

            return finish

    reported: list[int] = []
    rows = run_on_ray(Builder, range(4), 2, False, reported.append)
    assert [row["index"] for row in rows] == [0, 1, 2, 3]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["computing", "writing"]
    assert sum(reported) == 40


def test_a_worker_that_died_idle_does_not_cost_a_lost_shard_a_life(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when a node dies: the worker at shard 0, and the one that has nothing left to do."""
    monkeypatch.setattr(ray_pool, "MAX_DEATHS", 1)

    class Builder:
        def compute(self, task: int, progress: Callable[[int], None]) -> Callable[[], dict[str, Any]]:
            idle = tmp_path / "idle"
            if task == 0 and not (tmp_path / "died").exists():
                while not (idle.exists() and idle.read_text()):
                    time.sleep(0.05)
                time.sleep(1)  # for its result to arrive
                (tmp_path / "died").touch()
                os.kill(int(idle.read_text()), 9)
                os.kill(os.getpid(), 9)

            def finish() -> dict[str, Any]:
                if task == 1:
                    idle.write_text(str(os.getpid()))
                return {"index": task}

            return finish

    assert run_on_ray(Builder, range(2), 2, False, ignore) == [{"index": 0}, {"index": 1}]
    assert (tmp_path / "died").exists()


def test_a_shard_that_kills_every_worker_ends_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    def build(index: int) -> dict[str, Any]:
        if index == 1:
            os.kill(os.getpid(), 9)
        return {}

    monkeypatch.setattr(ray_pool, "MAX_DEATHS", 1)
    with pytest.raises(UserError, match=r"^a Ray worker died 2 times at the same shard.*run again with fewer WORKERS"):
        run_on_ray(builder(build), range(2), 1, False, ignore)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_ctrl_c_ends_the_run_even_where_python_drops_it() -> None:
    """In a destructor or a callback of C, an exception is printed and forgotten."""

    class Destroyed:
        def __del__(self) -> None:
            os.kill(os.getpid(), signal.SIGINT)

    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        run_on_ray(builder(lambda index: {}), range(1000), 1, False, lambda _: Destroyed() and None)
    assert signal.getsignal(signal.SIGINT) is before


def test_workers_that_cannot_start_end_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_pool, "MAX_DEATHS", 1)
    with pytest.raises(UserError, match=r"^Ray workers die before they begin, 2 did: The actor is dead"):
        run_on_ray(lambda: os.kill(os.getpid(), 9), range(1), 1, False, ignore)


def test_a_worker_that_cannot_start_does_not_end_the_work_of_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray_pool, "MAX_DEATHS", 0)

    def wait_for(name: str) -> None:
        while not (tmp_path / name).exists():
            time.sleep(0.05)

    class Builder:
        def __init__(self) -> None:
            try:
                (tmp_path / "first").mkdir()
            except FileExistsError:
                wait_for("at work")
                (tmp_path / "dying").touch()
                os.kill(os.getpid(), 9)

        def compute(self, task: int, progress: Callable[[int], None]) -> Callable[[], dict[str, Any]]:
            (tmp_path / "at work").touch()
            wait_for("dying")
            time.sleep(0.5)
            return lambda: {"index": task}

    assert run_on_ray(Builder, range(2), 2, False, ignore) == [{"index": 0}, {"index": 1}]


def test_waiting_for_a_free_core_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    class Other:
        def ready(self) -> None:
            pass

    other: Any = ray.remote(Other).options(num_cpus=2).remote()
    ray.get(other.ready.remote())
    said: list[str] = []

    def warning(message: str, *values: object) -> None:
        said.append(message % values)
        ray.kill(other)

    monkeypatch.setattr(ray_pool, "NOTICE_SECONDS", 0)
    monkeypatch.setattr(ray_pool.logger, "warning", warning)
    assert run_on_ray(builder(lambda index: {"index": index}), range(1), 1, False, ignore) == [{"index": 0}]
    assert set(said) == {"No worker is running: Ray waits for a free CPU core."}


def test_ray_makes_the_same_shards_also_at_a_url(tmp_path: Path, finished: Path, make_job: Callable[..., Job]) -> None:
    reported: list[int] = []
    run(make_job(), f"file://{tmp_path}/shards", 2, reported.append)
    manifest = stored_manifest(open_store(f"file://{tmp_path}/shards"))
    assert manifest is not None
    assert [entry.content_sha256 for entry in manifest.entries or ()] == hashes(finished)
    assert sum(reported) == 14


def test_a_place_that_a_worker_does_not_see_is_refused(make_job: Callable[..., Job]) -> None:
    """Memory is each process's own, as a disk is each node's own."""
    with pytest.raises(
        UserError, match=r"^on .*: memory://unseen is not the same storage on this node; SHARDS must be"
    ):
        run(make_job(), "memory://unseen", 1, ignore)
    fsspec.filesystem("memory").store.clear()


def test_an_address_where_nobody_listens_and_one_that_is_none_are_refused_at_once() -> None:
    """In a process that has no cluster; by itself, Ray would try for minutes."""
    program = """
import os
import sys
from stage1_proposals.common.errors import UserError
from stage1_proposals.jobs.workers import run_on_ray
for address in sys.argv[1:]:
    os.environ["RAY_ADDRESS"] = address
    try:
        run_on_ray(lambda: None, range(1), 1, False, lambda _: None)
    except UserError as error:
        print(error)
"""
    addresses = ["127.0.0.1:1", "[::1]:1", "127.0.0.1:99999", "nowhere.invalid:6379", "nowhere", "here:there"]
    addresses += ["ray://127.0.0.1:1", "ray://nowhere.invalid", "ray://[::1]:1"]
    command = [sys.executable, "-c", program, *addresses]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=30)
    assert not ended.stderr
    lines = ended.stdout.splitlines()
    for line, address in zip(lines, addresses, strict=True):
        assert line.startswith(f"Ray at {address}: cannot be reached or started ("), line
        assert line.endswith("; WORKERS=0 does without")
    assert "Connection refused" in lines[0]


def test_merging_makes_the_same_shards_on_ray_in_other_batches_and_after_an_interruption(
    tmp_path: Path, make_job: Callable[..., Job]
) -> None:
    settings = {"generator": {"name": "merging"}, "feature_stride": 16}
    run(make_job(**settings), tmp_path / "once", 0, ignore)
    shutil.copytree(tmp_path / "once", tmp_path / "again")
    for path in shard_files(tmp_path / "again")[1:]:
        path.unlink()
    run(make_job(**settings, batch_size=8), tmp_path / "again", 2, ignore)
    assert hashes(tmp_path / "again") == hashes(tmp_path / "once")
    shards = ShardSet.open(tmp_path / "again")
    assert (shards.backbone.stride, shards.feature_dim) == (16, 112 + 320)
    assert shards.proposal_count > 12


@pytest.mark.parametrize(("failures", "tries"), [(0, 1), (2, 3), (3, 3)])
def test_a_cluster_that_is_not_up_in_time_is_started_again(
    monkeypatch: pytest.MonkeyPatch, failures: int, tries: int
) -> None:
    starts = []

    def init(**_: Any) -> None:
        starts.append(len(starts))
        if len(starts) <= failures:
            raise Exception("The current node timed out during startup. This could happen")

    monkeypatch.setattr(ray_pool.ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray_pool.ray, "init", init)
    monkeypatch.setattr(ray_pool.ray, "shutdown", lambda: None)
    monkeypatch.setenv("RAY_ADDRESS", "")
    refused = pytest.raises(UserError, match="it was not up in 30 s, three times")
    with nullcontext() if failures < 3 else refused, ray_pool._cluster():
        pass
    assert len(starts) == tries
