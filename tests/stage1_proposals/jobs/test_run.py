"""The job: sound shards, in order, the same on any number of workers."""

import hashlib
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from stage1_proposals.common.errors import UserError
from stage1_proposals.images.listing import ImageList, image_ids, list_images
from stage1_proposals.jobs.request import Job
from stage1_proposals.jobs.run import run
from stage1_proposals.shards import ShardReader, ShardSet, verify_shard, writer
from tests.shard_sets import GENERATORS, hashes, ignore, shard_files


def test_a_set_is_whole_and_sound(finished: Path) -> None:
    shards = ShardSet.open(finished)
    assert [verify_shard(path) for path in shards.shard_paths] == list(shards.entries)
    assert len(shards.entries) == 4
    assert shards.proposal_count > 12
    assert not list(finished.glob(".*.tmp"))


def test_every_image_stands_in_order_in_a_shard_or_its_failures(finished: Path, image_folder: Path) -> None:
    names, failures = [], []
    for path in ShardSet.open(finished).shard_paths:
        reader = ShardReader(path)
        records = [reader.read(index) for index in range(len(reader))]
        names += [record.file_name for record in records]
        failures += reader.failures()
        assert [record.image_id for record in records] == list(image_ids([record.file_name for record in records]))
    assert failures == [
        ("0/empty.jpg", "is empty (0 bytes)"),
        ("1/text.jpg", "is not an image Pillow can read"),
    ]
    assert names == sorted(path.relative_to(image_folder).as_posix() for path in image_folder.rglob("*.png"))


def test_a_shard_says_how_it_was_made(finished: Path, image_folder: Path) -> None:
    shards = ShardSet.open(finished)
    for index, path in enumerate(shards.shard_paths):
        attributes = ShardReader(path).attributes
        assert (attributes["shard_index"], attributes["shard_count"]) == (index, 4)
        assert attributes["image_root"] == shards.image_root == str(image_folder.resolve())
        assert attributes["generator"] == shards.request.generator
        assert attributes["backbone"] == shards.backbone.to_json()
        assert attributes["generator"]["short_side"] == 64
        assert len(attributes["backbone"]["sha256"]) == 64


def test_progress_is_reported_once_for_each_image(tmp_path: Path, make_job: Callable[..., Job]) -> None:
    reported: list[int] = []
    run(make_job(images_per_shard=20), tmp_path / "shards", 0, reported.append)
    assert sum(reported) == 14


@pytest.mark.parametrize("generator", GENERATORS)
@pytest.mark.parametrize("batch_size", [1, 8])
def test_the_batch_size_does_not_change_the_shards(
    tmp_path: Path,
    finished_by: Callable[[str], Path],
    make_job: Callable[..., Job],
    batch_size: int,
    generator: str,
) -> None:
    run(make_job(**GENERATORS[generator], batch_size=batch_size), tmp_path / "shards", 0, ignore)
    assert hashes(tmp_path / "shards") == hashes(finished_by(generator))


def test_another_feature_stride_is_another_request(directory: Path, make_job: Callable[..., Job]) -> None:
    with pytest.raises(UserError, match=r"backbone\.stride was 32, requested 16"):
        run(make_job(feature_stride=16), directory, 0, ignore)


CLOCKS = {"far ahead": 4e9, "at the beginning": 0.0}


@pytest.mark.parametrize("now", CLOCKS.values(), ids=CLOCKS)
def test_nothing_depends_on_the_clock_or_on_the_times_of_files(
    directory: Path,
    finished: Path,
    image_folder: Path,
    tmp_path: Path,
    make_job: Callable[..., Job],
    monkeypatch: pytest.MonkeyPatch,
    now: float,
) -> None:
    """A clock that stands elsewhere, and runs backwards."""
    images = Path(shutil.copytree(image_folder, tmp_path / "images"))
    job = replace(make_job(), images=replace(list_images(images), root=image_folder.resolve()))
    first, second, *_ = shard_files(directory)
    second.unlink()
    for path in (*shard_files(directory), directory / "manifest.json", *images.rglob("*.*")):
        os.utime(path, (now, now))
    ticks = iter(range(1_000_000))

    class Clock(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> datetime:
            return datetime.fromtimestamp(max(0.0, now - next(ticks)), tz)

    monkeypatch.setattr(writer, "datetime", Clock)
    monkeypatch.setattr(time, "time", lambda: now - next(ticks))
    run(job, directory, 0, ignore)
    assert hashes(directory) == hashes(finished)
    assert first.stat().st_mtime == now
    assert next(ticks) > 0


@pytest.mark.parametrize("name", ["short_side", "long_side", "images_per_shard", "batch_size"])
@pytest.mark.parametrize("value", [0, -1, 2.5, "8"])
def test_sizes_are_positive_whole_numbers(make_job: Callable[..., Job], name: str, value: object) -> None:
    with pytest.raises(UserError, match=f"job: {name} {value!r}: must be (greater than 0|a whole number)"):
        make_job(**{name: value})


@pytest.mark.parametrize("per_shard", [1, 4, 13, 14, 100])
def test_shards_partition_the_images(make_job: Callable[..., Job], per_shard: int) -> None:
    job = make_job(images_per_shard=per_shard)
    tasks = [job.task(index) for index in range(job.shard_count)]
    assert tuple(name for task in tasks for name in task.names) == job.images.names
    assert tuple(image_id for task in tasks for image_id in task.ids) == job.images.ids
    assert [task.index for task in tasks] == list(range(job.shard_count))
    assert all(task.names for task in tasks)


def test_ten_thousand_images_are_shared_out_once_each(make_job: Callable[..., Job], tmp_path: Path) -> None:
    names = tuple(f"{number:012d}.jpg" for number in range(10_000))
    job = replace(make_job(images_per_shard=512), images=ImageList(tmp_path, names, image_ids(names)))
    tasks = [job.task(index) for index in range(job.shard_count)]
    assert [len(task.names) for task in tasks] == [512] * 19 + [272]
    assert [image_id for task in tasks for image_id in task.ids] == list(range(10_000))
    assert job.images.sha256() == hashlib.sha256(b"".join(name.encode() + b"\0" for name in names)).hexdigest()
    assert job.request().image_count == 10_000


@pytest.mark.parametrize(
    ("images", "size", "shards"),
    [(1, 16, 1), (16, 16, 1), (504, 16, 32), (1024, 16, 64), (1025, 17, 61), (10_000, 157, 64), (123_403, 1000, 124)],
)
def test_small_sets_are_shared_out_by_the_number_of_images(
    make_job: Callable[..., Job], tmp_path: Path, images: int, size: int, shards: int
) -> None:
    names = tuple(f"{number}.jpg" for number in range(images))
    job = replace(make_job(images_per_shard=None), images=ImageList(tmp_path, names, tuple(range(images))))
    assert (job.images_per_shard, job.shard_count) == (size, shards)
    assert sum(len(job.task(index).names) for index in range(shards)) == images


def test_a_set_made_with_another_number_per_shard_is_continued(
    directory: Path, finished: Path, make_job: Callable[..., Job]
) -> None:
    """Sets of before had 1,000 images per shard; this one has 4."""
    shard_files(directory)[1].unlink()
    run(make_job(images_per_shard=None), directory, 0, ignore)
    assert hashes(directory) == hashes(finished)
    with pytest.raises(UserError, match="was made with other settings: images_per_shard was 4, requested 5"):
        run(make_job(images_per_shard=5), directory, 0, ignore)
