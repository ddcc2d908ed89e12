"""Images that cannot be read, change, go or come back, between runs."""

import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from stage1_proposals.common.errors import UserError
from stage1_proposals.images.decode import read_image
from stage1_proposals.images.listing import list_images
from stage1_proposals.jobs.builder import ShardBuilder
from stage1_proposals.jobs.request import Job
from stage1_proposals.jobs.run import run
from stage1_proposals.shards import ShardError, ShardReader, ShardSet
from tests.shard_sets import failures, hashes, ignore, read_all, shard_files


def test_images_with_odd_names_go_into_the_shard_and_are_found_again(
    image_folder: Path, tmp_path: Path, make_job: Callable[..., Job]
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
    (tmp_path / "images").mkdir()
    for name, image in zip(names, sorted(image_folder.rglob("*.png")), strict=False):
        shutil.copy(image, tmp_path / "images" / name)
    job = make_job(tmp_path / "images")
    run(job, tmp_path / "shards", 0, ignore)
    records = read_all(tmp_path / "shards")
    assert [record.file_name for record in records] == sorted(names)
    assert [record.image_id for record in records] == list(job.images.ids)
    for record in records:
        image = read_image(Path(ShardSet.open(tmp_path / "shards").image_root) / record.file_name)
        assert image.shape[:2] == (record.height, record.width)


def test_whatever_a_folder_holds_under_the_name_of_an_image_is_recorded(
    image_folder: Path, tmp_path: Path, make_job: Callable[..., Job]
) -> None:
    images = tmp_path / "images"
    (images / "directory.jpg").mkdir(parents=True)
    shutil.copy(image_folder / "0" / "0000.png", images / "image.png")
    os.mkfifo(images / "fifo.jpg")
    (images / "link.jpg").symlink_to(images / "gone.jpg")
    (images / "null.jpg").symlink_to("/dev/null")
    (images / "bomb.png").write_bytes(b"P6 60000 60000 255\n")
    Image.new("RGB", (20_000, 1)).save(images / "stripe.png")
    run(make_job(images), tmp_path / "shards", 0, ignore)
    assert [record.file_name for record in read_all(tmp_path / "shards")] == ["image.png"]
    assert failures(tmp_path / "shards") == {
        "bomb.png": "is too large: it has more than 200,000,000 pixels",
        "fifo.jpg": "is a FIFO, not a file",
        "link.jpg": "is a broken symbolic link",
        "null.jpg": "is a device, not a file",
        "stripe.png": "is a strip of 20000 x 1 pixels: its longer side may be at most 100 times the shorter one",
    }


def test_images_of_a_list_that_are_not_there_are_recorded(
    image_folder: Path, tmp_path: Path, make_job: Callable[..., Job]
) -> None:
    (tmp_path / "images.txt").write_text("0/0000.png\n0/gone.png\n0\n")
    job = replace(make_job(), images=list_images(tmp_path / "images.txt", image_folder))
    run(job, tmp_path / "shards", 0, ignore)
    assert [record.file_name for record in read_all(tmp_path / "shards")] == ["0/0000.png"]
    assert failures(tmp_path / "shards") == {"0": "is a directory, not a file", "0/gone.png": "does not exist"}


CHANGES: dict[str, Callable[[Path], object]] = {
    "another size": lambda path: Image.new("RGB", (30, 20)).save(path),
    "other content": lambda path: Image.new("RGB", Image.open(path).size).save(path),
    "unreadable": lambda path: path.write_text("not an image"),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_what_was_seen_stays_when_an_image_changes_later(
    image_folder: Path, tmp_path: Path, make_job: Callable[..., Job], change: Callable[[Path], object]
) -> None:
    images = Path(shutil.copytree(image_folder, tmp_path / "images"))
    run(make_job(images), tmp_path / "shards", 0, ignore)
    before = hashes(tmp_path / "shards")
    change(images / "0" / "0000.png")
    for retry_failed in (False, True):
        run(make_job(images), tmp_path / "shards", 0, ignore, retry_failed)
        assert hashes(tmp_path / "shards") == before


def test_an_image_deleted_later_is_another_folder_but_the_list_of_its_images_goes_on(
    image_folder: Path, tmp_path: Path, make_job: Callable[..., Job]
) -> None:
    images = Path(shutil.copytree(image_folder, tmp_path / "images"))
    job, directory = make_job(images), tmp_path / "shards"
    run(job, directory, 0, ignore)
    before = hashes(directory)
    shard_files(directory)[1].unlink()  # the run stopped before this one
    (images / "0" / "0000.png").unlink()
    (images / "0" / "0010.png").unlink()
    with pytest.raises(UserError, match="image_count was 14, requested 12"):
        run(make_job(images), directory, 0, ignore)
    (tmp_path / "images.txt").write_text("\n".join(job.images.names))
    run(replace(job, images=list_images(tmp_path / "images.txt", images)), directory, 0, ignore)
    assert [new == old for new, old in zip(hashes(directory), before, strict=True)] == [True, False, True, True]
    assert failures(directory)["0/0010.png"] == "does not exist"


def test_failed_images_put_right_are_read_when_asked_for(
    image_folder: Path, tmp_path: Path, make_job: Callable[..., Job]
) -> None:
    images = Path(shutil.copytree(image_folder, tmp_path / "images"))
    job, directory, reported = make_job(images), tmp_path / "shards", list[int]()
    run(job, directory, 0, ignore)
    shutil.copy(images / "0" / "0000.png", images / "0" / "empty.jpg")
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


def test_reading_failed_images_again_loses_nothing_when_all_images_are_gone(
    image_folder: Path, tmp_path: Path, make_job: Callable[..., Job]
) -> None:
    images = Path(shutil.copytree(image_folder, tmp_path / "images"))
    job, directory = make_job(images), tmp_path / "shards"
    run(job, directory, 0, ignore)
    before = [(record.file_name, record.rle) for record in read_all(directory)]
    shutil.rmtree(images)
    run(job, directory, 0, ignore, retry_failed=True)
    assert [(record.file_name, record.rle) for record in read_all(directory)] == before
    assert failures(directory) == {"0/empty.jpg": "does not exist", "1/text.jpg": "does not exist"}


def test_a_set_whose_failed_images_are_being_read_again_is_unfinished(
    image_folder: Path, tmp_path: Path, make_job: Callable[..., Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    images = Path(shutil.copytree(image_folder, tmp_path / "images"))
    job, directory = make_job(images), tmp_path / "shards"
    run(job, directory, 0, ignore)
    shutil.copy(images / "0" / "0000.png", images / "1" / "text.jpg")

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
