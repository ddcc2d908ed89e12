"""A run goes on: what is sound in its directory is kept, what is damaged or missing is built again."""

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import pytest

from stage1_proposals.common.errors import UserError
from stage1_proposals.images.listing import list_images
from stage1_proposals.jobs.request import Job, check_same_request
from stage1_proposals.jobs.run import run
from stage1_proposals.jobs.store import LocalStore
from stage1_proposals.shards import ShardSet, verify_shard
from tests.shard_sets import GENERATORS, fix_attribute_lengths, hashes, ignore, read_all, shard_files


def test_a_second_run_does_nothing(directory: Path, make_job: Callable[..., Job]) -> None:
    before = {path: path.stat().st_mtime_ns for path in shard_files(directory)}
    reported: list[int] = []
    run(make_job(), directory, 0, reported.append)
    assert {path: path.stat().st_mtime_ns for path in shard_files(directory)} == before
    assert sum(reported) == 14


SALIENCY_BEFORE: dict[str, Any] = {
    "name": "saliency",
    "similarity": "cosine",
    "seed_scales": [1.0, 0.5, 0.25],
    "seed_grid": None,
    "threshold": 0.5,
    "nms": "greedy",
    "nms_iou": 0.5,
    "nms_sigma": 2.0,
    "max_proposals": 20,
    "min_cells": 1,
    "min_score": 0.0,
    "max_width": 1.0,
    "top_margin": 0.0,
    "short_side": 64,
    "long_side": 128,
}


def test_a_set_of_before_is_read_and_continued(directory: Path, finished: Path, make_job: Callable[..., Job]) -> None:
    """Its generator had fewer settings, its backbone no precision, and its text attributes are of fixed length."""
    document = json.loads((directory / "manifest.json").read_text())
    backbone = {key: value for key, value in document["request"]["backbone"].items() if key != "precision"}
    document["request"] |= {"generator": SALIENCY_BEFORE, "backbone": backbone}
    (directory / "manifest.json").write_text(json.dumps(document))
    for path in shard_files(directory):
        with h5py.File(path, "r+") as file:
            file.attrs.update(generator=json.dumps(SALIENCY_BEFORE), backbone=json.dumps(backbone))
        fix_attribute_lengths(path)
    assert [record.rle for record in read_all(directory)] == [record.rle for record in read_all(finished)]
    first, second, *others = shard_files(directory)
    second.unlink()
    before = {path: path.read_bytes() for path in (first, *others)}
    run(make_job(), directory, 0, ignore)
    assert {path: path.read_bytes() for path in (first, *others)} == before
    assert hashes(directory) == hashes(finished)


@pytest.mark.parametrize("generator", GENERATORS)
def test_a_deleted_shard_is_built_again_alone(
    tmp_path: Path, finished_by: Callable[[str], Path], make_job: Callable[..., Job], generator: str
) -> None:
    directory = Path(shutil.copytree(finished_by(generator), tmp_path / "shards"))
    first, second, *_ = shard_files(directory)
    second.unlink()
    before = first.stat().st_mtime_ns
    run(make_job(**GENERATORS[generator]), directory, 0, ignore)
    assert hashes(directory) == hashes(finished_by(generator))
    assert first.stat().st_mtime_ns == before


@pytest.mark.parametrize("harm", ["cut", "flipped"])
@pytest.mark.parametrize("where", [0.1, 0.5, 0.9])
def test_a_damaged_shard_is_built_again(
    directory: Path, finished: Path, make_job: Callable[..., Job], harm: str, where: float
) -> None:
    path = shard_files(directory)[2]
    data = bytearray(path.read_bytes())
    cut = int(where * len(data))
    data[cut] ^= 0x10
    path.write_bytes(data[:cut] if harm == "cut" else data)
    run(make_job(), directory, 0, ignore)
    assert verify_shard(path).content_sha256 == hashes(finished)[2]


def test_a_set_without_its_last_manifest_is_finished(
    directory: Path, finished: Path, make_job: Callable[..., Job]
) -> None:
    manifest = json.loads((directory / "manifest.json").read_text())
    (directory / "manifest.json").write_text(json.dumps({**manifest, "shards": None}))
    run(make_job(), directory, 0, ignore)
    assert hashes(directory) == hashes(finished)


def test_leftovers_of_a_killed_run_are_cleared_away(directory: Path, make_job: Callable[..., Job]) -> None:
    (directory / ".shard-00000-of-00004.h5.123.tmp").write_text("half")
    run(make_job(), directory, 0, ignore)
    assert not list(directory.glob(".*.tmp"))


def test_only_its_own_leftovers_are_removed(directory: Path, make_job: Callable[..., Job]) -> None:
    ours, foreign = directory / ".shard-00000-of-00004.h5.1.tmp", directory / ".notes.tmp"
    for path in (ours, foreign):
        path.touch()
    run(make_job(), directory, 0, ignore)
    assert (ours.exists(), foreign.exists()) == (False, True)


def test_a_shard_of_another_request_is_not_taken(directory: Path, finished: Path, make_job: Callable[..., Job]) -> None:
    """Without a manifest, the shards themselves say what they are."""
    (directory / "manifest.json").unlink()
    run(make_job(generator={"threshold": 0.7}), directory, 0, ignore)
    assert not set(hashes(directory)) & set(hashes(finished))


def test_shards_of_other_images_are_not_taken_for_sound(
    directory: Path, image_folder: Path, tmp_path: Path, make_job: Callable[..., Job]
) -> None:
    """Shards alone, their manifest lost: the same file names elsewhere are other images, and so are other names."""
    images = Path(shutil.copytree(image_folder, tmp_path / "images"))
    for job in (make_job(images), make_job(images_per_shard=5)):
        (directory / "manifest.json").unlink()
        run(job, directory, 0, ignore)
        assert ShardSet.open(directory).image_root == str(job.images.root)
        assert ShardSet.open(directory).image_count == 12


def test_shards_with_other_ids_are_not_taken_for_sound(
    directory: Path, image_folder: Path, tmp_path: Path, make_job: Callable[..., Job]
) -> None:
    images = [{"id": 500 + row, "file_name": name} for row, name in enumerate(make_job().images.names)]
    (tmp_path / "images.json").write_text(json.dumps({"images": images}))
    job = replace(make_job(), images=list_images(tmp_path / "images.json", image_folder))
    with pytest.raises(UserError, match="image_list_sha256 was"):
        run(job, directory, 0, ignore)
    (directory / "manifest.json").unlink()
    run(job, directory, 0, ignore)
    ids = {image["file_name"]: image["id"] for image in images}
    assert [record.image_id for record in read_all(directory)] == [ids[r.file_name] for r in read_all(directory)]


def test_the_same_weights_elsewhere_are_the_same_request(directory: Path) -> None:
    request = ShardSet.open(directory).request
    moved, other = replace(request.backbone, weights="/elsewhere.pth"), replace(request.backbone, sha256="other")
    check_same_request(LocalStore(directory), replace(request, backbone=moved))
    with pytest.raises(UserError, match=r"backbone\.sha256"):
        check_same_request(LocalStore(directory), replace(request, backbone=other))


def test_a_disk_that_fills_up_is_the_users_error_and_the_run_goes_on_later(
    tmp_path: Path, finished: Path, make_job: Callable[..., Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    writes = []

    def fsync(descriptor: int) -> None:
        writes.append(descriptor)
        if len(writes) > 4:  # the manifest, its directory, one shard and its directory
            raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fsync)
        with pytest.raises(UserError, match=r"00001-of-00004\.h5: cannot be written \(No space"):
            run(make_job(), tmp_path / "shards", 0, ignore)
    assert [path.name for path in shard_files(tmp_path / "shards")] == ["shard-00000-of-00004.h5"]
    run(make_job(), tmp_path / "shards", 0, ignore)
    assert hashes(tmp_path / "shards") == hashes(finished)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own, of 64 KB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounting = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", folder], capture_output=True)
    if mounting.returncode:
        pytest.skip("this machine does not let its user mount a small disk")
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_a_small_disk_fills_up_and_more_room_is_all_it_takes(
    small_disk: Path, finished: Path, make_job: Callable[..., Job]
) -> None:
    directory = small_disk / "shards"
    with pytest.raises(UserError, match=r"\.h5: cannot be written \(No space left .*; finished shards are kept"):
        run(make_job(), directory, 0, ignore)
    done = shard_files(directory)
    assert 1 <= len(done) < 4
    for path in done:
        verify_shard(path)
    subprocess.run(["mount", "-o", "remount,size=10m", small_disk], check=True)
    run(make_job(), directory, 0, ignore)
    assert hashes(directory) == hashes(finished)
    assert not list(directory.glob(".*.tmp"))
