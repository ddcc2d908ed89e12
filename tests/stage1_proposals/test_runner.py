"""The job: resumable, refusing what does not fit, the same on any number of workers."""

import hashlib
import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from PIL import Image

from stage1_proposals.backbones import new_network
from stage1_proposals.builder import ShardBuilder
from stage1_proposals.directory import sole_user
from stage1_proposals.errors import UserError
from stage1_proposals.job import Job, check_same_request
from stage1_proposals.photo_list import PhotoList, image_ids, list_photos
from stage1_proposals.photos import read_photo
from stage1_proposals.runner import run
from stage1_proposals.shards import ImageRecord, ShardError, ShardReader, ShardSet, read_manifest, verify_shard, writer
from stage1_proposals.store import LocalStore


def ignore(_: int) -> None:
    pass


def hashes(directory: Path) -> list[str]:
    return [shard["content_sha256"] for shard in ShardSet.open(directory).shards]


def shard_files(directory: Path) -> list[Path]:
    return sorted(directory.glob("*.h5"))


@pytest.fixture
def directory(finished: Path, tmp_path: Path) -> Path:
    """A copy of the finished set, to do harm to."""
    return Path(shutil.copytree(finished, tmp_path / "shards"))


def test_a_set_is_whole_and_sound(finished: Path) -> None:
    shards = ShardSet.open(finished)
    assert [verify_shard(path) for path in shards.shard_paths] == list(shards.shards)
    assert len(shards.shards) == 4
    assert sum(row["proposals"] for row in shards.shards) > 12
    assert not list(finished.glob(".*.tmp"))


def test_every_photo_stands_in_order_in_a_shard_or_its_failures(finished: Path, photo_folder: Path) -> None:
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
    assert names == sorted(path.relative_to(photo_folder).as_posix() for path in photo_folder.rglob("*.png"))


def test_a_shard_says_how_it_was_made(finished: Path, photo_folder: Path) -> None:
    shards = ShardSet.open(finished)
    for index, path in enumerate(shards.shard_paths):
        attributes = ShardReader(path).attributes
        assert (attributes["shard_index"], attributes["shard_count"]) == (index, 4)
        assert attributes["image_root"] == shards.image_root == str(photo_folder.resolve())
        assert attributes["generator"] == shards.request["generator"]
        assert attributes["backbone"] == shards.backbone
        assert attributes["generator"]["short_side"] == 64
        assert len(attributes["backbone"]["sha256"]) == 64


def test_a_second_run_does_nothing(directory: Path, make_job: Callable[..., Job]) -> None:
    before = {path: path.stat().st_mtime_ns for path in shard_files(directory)}
    reported: list[int] = []
    run(make_job(), directory, 0, reported.append)
    assert {path: path.stat().st_mtime_ns for path in shard_files(directory)} == before
    assert sum(reported) == 14


def test_progress_is_reported_once_for_each_photo(tmp_path: Path, make_job: Callable[..., Job]) -> None:
    reported: list[int] = []
    run(make_job(images_per_shard=20), tmp_path / "shards", 0, reported.append)
    assert sum(reported) == 14


def test_a_deleted_shard_is_built_again_alone(directory: Path, finished: Path, make_job: Callable[..., Job]) -> None:
    first, second, *_ = shard_files(directory)
    second.unlink()
    before = first.stat().st_mtime_ns
    run(make_job(), directory, 0, ignore)
    assert hashes(directory) == hashes(finished)
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
    assert verify_shard(path)["content_sha256"] == hashes(finished)[2]


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


def test_a_shard_of_another_request_is_not_taken(directory: Path, finished: Path, make_job: Callable[..., Job]) -> None:
    """Without a manifest, the shards themselves say what they are."""
    (directory / "manifest.json").unlink()
    run(make_job(generator={"threshold": 0.7}), directory, 0, ignore)
    assert not set(hashes(directory)) & set(hashes(finished))


@pytest.mark.parametrize("batch_size", [1, 8])
def test_the_batch_size_does_not_change_the_shards(
    tmp_path: Path, finished: Path, make_job: Callable[..., Job], batch_size: int
) -> None:
    run(make_job(batch_size=batch_size), tmp_path / "shards", 0, ignore)
    assert hashes(tmp_path / "shards") == hashes(finished)


@pytest.mark.usefixtures("ray_cluster")
def test_ray_makes_the_same_shards(tmp_path: Path, finished: Path, make_job: Callable[..., Job]) -> None:
    reported: list[int] = []
    run(make_job(), tmp_path / "shards", 2, reported.append)
    assert hashes(tmp_path / "shards") == hashes(finished)
    assert sum(reported) == 14


@pytest.mark.parametrize(
    ("changes", "difference"),
    [
        ({"short_side": 96}, "generator.short_side is 64 there, 96 asked for"),
        ({"images_per_shard": 5}, "images_per_shard is 4 there, 5 asked for; shard_count is 4 there, 3 asked for"),
        ({"generator": {"threshold": 0.6}}, "generator.threshold is 0.5 there, 0.6 asked for"),
        ({"generator": {"seed_grid": [2, 2]}}, r"generator.seed_grid is None there, \[2, 2\] asked for"),
    ],
)
def test_other_parameters_are_refused_naming_the_difference(
    directory: Path, make_job: Callable[..., Job], changes: dict[str, Any], difference: str
) -> None:
    before = sorted(directory.iterdir())
    with pytest.raises(UserError, match=f"holds other work: {difference}. Choose another"):
        run(make_job(**changes), directory, 0, ignore)
    assert sorted(directory.iterdir()) == before


def test_other_photos_are_refused(
    directory: Path, photo_folder: Path, tmp_path: Path, make_job: Callable[..., Job]
) -> None:
    photos = Path(shutil.copytree(photo_folder, tmp_path / "photos"))
    with pytest.raises(UserError, match=r"image_root is .* there, .* asked for"):
        run(make_job(photos), directory, 0, ignore)


def test_shards_of_other_photos_are_not_taken_for_sound(
    directory: Path, photo_folder: Path, tmp_path: Path, make_job: Callable[..., Job]
) -> None:
    """Shards alone, their manifest lost: the same file names elsewhere are other photos, and so are other names."""
    photos = Path(shutil.copytree(photo_folder, tmp_path / "photos"))
    for job in (make_job(photos), make_job(images_per_shard=5)):
        (directory / "manifest.json").unlink()
        run(job, directory, 0, ignore)
        assert ShardSet.open(directory).image_root == str(job.photos.root)
        assert sum(row["images"] for row in ShardSet.open(directory).shards) == 12


def read_all(directory: Path) -> list[ImageRecord]:
    readers = [ShardReader(path) for path in ShardSet.open(directory).shard_paths]
    return [reader.read(row) for reader in readers for row in range(len(reader))]


def failures(directory: Path) -> dict[str, str]:
    return dict(failure for path in ShardSet.open(directory).shard_paths for failure in ShardReader(path).failures())


def test_shards_with_other_ids_are_not_taken_for_sound(
    directory: Path, photo_folder: Path, tmp_path: Path, make_job: Callable[..., Job]
) -> None:
    images = [{"id": 500 + row, "file_name": name} for row, name in enumerate(make_job().photos.names)]
    (tmp_path / "photos.json").write_text(json.dumps({"images": images}))
    job = replace(make_job(), photos=list_photos(tmp_path / "photos.json", photo_folder))
    with pytest.raises(UserError, match="image_list_sha256 is"):
        run(job, directory, 0, ignore)
    (directory / "manifest.json").unlink()
    run(job, directory, 0, ignore)
    ids = {image["file_name"]: image["id"] for image in images}
    assert [record.image_id for record in read_all(directory)] == [ids[r.file_name] for r in read_all(directory)]


CLOCKS = {"far ahead": 4e9, "at the beginning": 0.0}


@pytest.mark.parametrize("now", CLOCKS.values(), ids=CLOCKS)
def test_nothing_depends_on_the_clock_or_on_the_times_of_files(
    directory: Path,
    finished: Path,
    photo_folder: Path,
    tmp_path: Path,
    make_job: Callable[..., Job],
    monkeypatch: pytest.MonkeyPatch,
    now: float,
) -> None:
    """A clock that stands elsewhere, and runs backwards."""
    photos = Path(shutil.copytree(photo_folder, tmp_path / "photos"))
    job = replace(make_job(), photos=replace(list_photos(photos), root=photo_folder.resolve()))
    first, second, *_ = shard_files(directory)
    second.unlink()
    for path in (*shard_files(directory), directory / "manifest.json", *photos.rglob("*.*")):
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


def test_photos_with_odd_names_go_into_the_shard_and_are_found_again(
    photo_folder: Path, tmp_path: Path, make_job: Callable[..., Job]
) -> None:
    """NFC beside NFD, emoji, right to left, a newline, control characters, and bytes that are not UTF-8."""
    names = [
        "\u00e9.png",
        "e\u0301.png",
        "🏔️.png",
        "תמונה.png",
        "a\nb.png",
        "\x1b[31m\x7f.png",
        os.fsdecode(b"\xff.png"),
    ]
    (tmp_path / "photos").mkdir()
    for name, photo in zip(names, sorted(photo_folder.rglob("*.png")), strict=False):
        shutil.copy(photo, tmp_path / "photos" / name)
    job = make_job(tmp_path / "photos")
    run(job, tmp_path / "shards", 0, ignore)
    records = read_all(tmp_path / "shards")
    assert [record.file_name for record in records] == sorted(names)
    assert [record.image_id for record in records] == list(job.photos.ids)
    for record in records:
        photo = read_photo(Path(ShardSet.open(tmp_path / "shards").image_root) / record.file_name)
        assert photo.shape[:2] == (record.height, record.width)


def test_whatever_a_folder_holds_under_the_name_of_a_photo_is_recorded(
    photo_folder: Path, tmp_path: Path, make_job: Callable[..., Job]
) -> None:
    photos = tmp_path / "photos"
    (photos / "directory.jpg").mkdir(parents=True)
    shutil.copy(photo_folder / "0" / "0000.png", photos / "photo.png")
    os.mkfifo(photos / "fifo.jpg")
    (photos / "link.jpg").symlink_to(photos / "gone.jpg")
    (photos / "null.jpg").symlink_to("/dev/null")
    (photos / "bomb.png").write_bytes(b"P6 60000 60000 255\n")
    Image.new("RGB", (20_000, 1)).save(photos / "stripe.png")
    run(make_job(photos), tmp_path / "shards", 0, ignore)
    assert [record.file_name for record in read_all(tmp_path / "shards")] == ["photo.png", "stripe.png"]
    assert failures(tmp_path / "shards") == {
        "bomb.png": "is too large: it has more than 200,000,000 pixels",
        "fifo.jpg": "is a FIFO, not a file",
        "link.jpg": "is a link to nowhere",
        "null.jpg": "is a device, not a file",
    }


def test_photos_of_a_list_that_are_not_there_are_recorded(
    photo_folder: Path, tmp_path: Path, make_job: Callable[..., Job]
) -> None:
    (tmp_path / "photos.txt").write_text("0/0000.png\n0/gone.png\n0\n")
    job = replace(make_job(), photos=list_photos(tmp_path / "photos.txt", photo_folder))
    run(job, tmp_path / "shards", 0, ignore)
    assert [record.file_name for record in read_all(tmp_path / "shards")] == ["0/0000.png"]
    assert failures(tmp_path / "shards") == {"0": "is a directory, not a file", "0/gone.png": "does not exist"}


CHANGES: dict[str, Callable[[Path], object]] = {
    "another size": lambda path: Image.new("RGB", (30, 20)).save(path),
    "other content": lambda path: Image.new("RGB", Image.open(path).size).save(path),
    "unreadable": lambda path: path.write_text("not a photo"),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_what_was_seen_stays_when_a_photo_changes_later(
    photo_folder: Path, tmp_path: Path, make_job: Callable[..., Job], change: Callable[[Path], object]
) -> None:
    photos = Path(shutil.copytree(photo_folder, tmp_path / "photos"))
    run(make_job(photos), tmp_path / "shards", 0, ignore)
    before = hashes(tmp_path / "shards")
    change(photos / "0" / "0000.png")
    for retry_failed in (False, True):
        run(make_job(photos), tmp_path / "shards", 0, ignore, retry_failed)
        assert hashes(tmp_path / "shards") == before


def test_a_photo_deleted_later_is_another_folder_but_the_list_of_its_photos_goes_on(
    photo_folder: Path, tmp_path: Path, make_job: Callable[..., Job]
) -> None:
    photos = Path(shutil.copytree(photo_folder, tmp_path / "photos"))
    job, directory = make_job(photos), tmp_path / "shards"
    run(job, directory, 0, ignore)
    before = hashes(directory)
    shard_files(directory)[1].unlink()  # the run stopped before this one
    (photos / "0" / "0000.png").unlink()
    (photos / "0" / "0010.png").unlink()
    with pytest.raises(UserError, match="image_count is 14 there, 12 asked for"):
        run(make_job(photos), directory, 0, ignore)
    (tmp_path / "photos.txt").write_text("\n".join(job.photos.names))
    run(replace(job, photos=list_photos(tmp_path / "photos.txt", photos)), directory, 0, ignore)
    assert [new == old for new, old in zip(hashes(directory), before, strict=True)] == [True, False, True, True]
    assert failures(directory)["0/0010.png"] == "does not exist"


def test_failed_photos_put_right_are_read_when_asked_for(
    photo_folder: Path, tmp_path: Path, make_job: Callable[..., Job]
) -> None:
    photos = Path(shutil.copytree(photo_folder, tmp_path / "photos"))
    job, directory, reported = make_job(photos), tmp_path / "shards", list[int]()
    run(job, directory, 0, ignore)
    shutil.copy(photos / "0" / "0000.png", photos / "0" / "empty.jpg")
    run(job, tmp_path / "afresh", 0, ignore)
    run(job, directory, 0, ignore)
    assert "0/empty.jpg" in failures(directory)
    untouched = {path: path.stat().st_mtime_ns for path in shard_files(directory) if not ShardReader(path).failures()}
    run(job, directory, 0, reported.append, retry_failed=True)
    assert hashes(directory) == hashes(tmp_path / "afresh")
    assert list(failures(directory)) == ["1/text.jpg"]
    assert sum(reported) == 14
    assert {path: path.stat().st_mtime_ns for path in untouched} == untouched
    assert len(untouched) == 2


def test_reading_failed_photos_again_loses_nothing_when_all_photos_are_gone(
    photo_folder: Path, tmp_path: Path, make_job: Callable[..., Job]
) -> None:
    photos = Path(shutil.copytree(photo_folder, tmp_path / "photos"))
    job, directory = make_job(photos), tmp_path / "shards"
    run(job, directory, 0, ignore)
    before = [(record.file_name, record.rle) for record in read_all(directory)]
    shutil.rmtree(photos)
    run(job, directory, 0, ignore, retry_failed=True)
    assert [(record.file_name, record.rle) for record in read_all(directory)] == before
    assert failures(directory) == {"0/empty.jpg": "does not exist", "1/text.jpg": "does not exist"}


def test_a_set_whose_failed_photos_are_being_read_again_is_unfinished(
    photo_folder: Path, tmp_path: Path, make_job: Callable[..., Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    photos = Path(shutil.copytree(photo_folder, tmp_path / "photos"))
    job, directory = make_job(photos), tmp_path / "shards"
    run(job, directory, 0, ignore)
    shutil.copy(photos / "0" / "0000.png", photos / "1" / "text.jpg")

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(ShardBuilder, "_records", interrupt)
        with pytest.raises(KeyboardInterrupt):
            run(job, directory, 0, ignore, retry_failed=True)
    with pytest.raises(ShardError, match="unfinished"):
        ShardSet.open(directory)
    run(job, directory, 0, ignore, retry_failed=True)
    assert list(failures(directory)) == ["0/empty.jpg"]


def test_only_its_own_leftovers_are_removed(directory: Path, make_job: Callable[..., Job]) -> None:
    ours, foreign = directory / ".shard-00000-of-00004.h5.1.tmp", directory / ".notes.tmp"
    for path in (ours, foreign):
        path.touch()
    run(make_job(), directory, 0, ignore)
    assert (ours.exists(), foreign.exists()) == (False, True)


def test_a_photo_more_is_another_request(directory: Path, make_job: Callable[..., Job]) -> None:
    manifest = read_manifest(directory)
    assert manifest is not None
    request = {**manifest["request"], "image_count": 15, "image_list_sha256": "other"}
    with pytest.raises(UserError, match=r"image_count is 14 there, 15 asked for; image_list_sha256 is"):
        check_same_request(LocalStore(directory), request)


def test_the_same_weights_elsewhere_are_the_same_request(directory: Path) -> None:
    manifest = read_manifest(directory)
    assert manifest is not None
    request = manifest["request"]
    check_same_request(
        LocalStore(directory), {**request, "backbone": {**request["backbone"], "weights": "/elsewhere.pth"}}
    )
    with pytest.raises(UserError, match=r"backbone\.sha256"):
        check_same_request(LocalStore(directory), {**request, "backbone": {**request["backbone"], "sha256": "other"}})


def test_a_directory_in_use_is_refused(directory: Path, make_job: Callable[..., Job]) -> None:
    with (
        sole_user(directory),
        pytest.raises(UserError, match="another run is writing there"),
    ):
        run(make_job(), directory, 0, ignore)
    run(make_job(), directory, 0, ignore)


def test_shards_that_may_not_be_written_are_refused(
    finished: Path, open_folder: Path, make_job: Callable[..., Job], as_nobody: Callable[[], Any]
) -> None:
    directory = Path(shutil.copytree(finished, open_folder / "shards"))
    before, job = {path.name: path.read_bytes() for path in directory.iterdir()}, make_job()
    directory.chmod(0o555)
    with as_nobody(), pytest.raises(UserError, match=f"^{directory}.*: cannot be written \\(Permission denied\\)"):
        run(job, directory, 0, ignore)
    assert {path.name: path.read_bytes() for path in directory.iterdir()} == before


def test_a_manifest_that_is_damaged_is_refused_and_written_anew_once_deleted(
    directory: Path, finished: Path, make_job: Callable[..., Job]
) -> None:
    manifest = directory / "manifest.json"
    manifest.write_bytes(manifest.read_bytes()[:-10])
    times = {path: path.stat().st_mtime_ns for path in shard_files(directory)}
    with pytest.raises(ShardError, match=r"manifest\.json: not JSON .*; delete it, and the same `make proposals`"):
        run(make_job(), directory, 0, ignore)
    manifest.unlink()
    run(make_job(), directory, 0, ignore)
    assert manifest.read_bytes() == (finished / "manifest.json").read_bytes()
    assert {path: path.stat().st_mtime_ns for path in shard_files(directory)} == times


def test_a_weights_file_changed_between_runs_is_other_work(
    tmp_path: Path, photo_folder: Path, make_job: Callable[..., Job]
) -> None:
    weights, states = tmp_path / "weights.safetensors", []
    for seed in (0, 1):
        torch.manual_seed(seed)
        states.append(new_network("test_vit").state_dict())
    safetensors.torch.save_file(states[0], weights)
    job = make_job(backbone="test_vit", weights=str(weights))
    run(job, tmp_path / "shards", 0, ignore)
    before = hashes(tmp_path / "shards")
    safetensors.torch.save_file(states[1], weights)
    with pytest.raises(UserError, match=r"holds other work: backbone\.sha256 is '\w+' there, '\w+' asked for"):
        run(job, tmp_path / "shards", 0, ignore)
    assert hashes(tmp_path / "shards") == before


def test_a_path_that_cannot_be_a_directory_is_refused(tmp_path: Path, make_job: Callable[..., Job]) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="file: cannot be written"):
        run(make_job(), tmp_path / "file", 0, ignore)


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


@pytest.mark.parametrize("name", ["short_side", "long_side", "images_per_shard", "batch_size"])
@pytest.mark.parametrize("value", [0, -1, 2.5, "8"])
def test_sizes_are_positive_whole_numbers(make_job: Callable[..., Job], name: str, value: object) -> None:
    with pytest.raises(UserError, match=f"{name} must be a positive whole number, not {value!r}"):
        make_job(**{name: value})


@pytest.mark.parametrize("per_shard", [1, 4, 13, 14, 100])
def test_shards_partition_the_photos(make_job: Callable[..., Job], per_shard: int) -> None:
    job = make_job(images_per_shard=per_shard)
    tasks = [job.task(index) for index in range(job.shard_count)]
    assert tuple(name for task in tasks for name in task.names) == job.photos.names
    assert tuple(image_id for task in tasks for image_id in task.ids) == job.photos.ids
    assert [task.index for task in tasks] == list(range(job.shard_count))
    assert all(task.names for task in tasks)


def test_ten_thousand_photos_are_shared_out_once_each(make_job: Callable[..., Job], tmp_path: Path) -> None:
    names = tuple(f"{number:012d}.jpg" for number in range(10_000))
    job = replace(make_job(), photos=PhotoList(tmp_path, names, image_ids(names)), images_per_shard=512)
    tasks = [job.task(index) for index in range(job.shard_count)]
    assert [len(task.names) for task in tasks] == [512] * 19 + [272]
    assert [image_id for task in tasks for image_id in task.ids] == list(range(10_000))
    assert job.photos.sha256() == hashlib.sha256(b"".join(name.encode() + b"\0" for name in names)).hexdigest()
    assert job.request()["image_count"] == 10_000
