"""Which photos, under which ids, and how they come to the backbone."""

import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from stage1_proposals.errors import UserError
from stage1_proposals.images import Photo, batch_by_size, image_ids, input_size, list_photos, load_photo, load_photos


def touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def test_photos_are_found_at_any_depth_in_sorted_order(tmp_path: Path) -> None:
    touch(tmp_path, "b/2.jpg", "b/1.png", "a.jpg", "b.jpg", "b/c/d.webp")
    assert list_photos(tmp_path).names == ("a.jpg", "b.jpg", "b/1.png", "b/2.jpg", "b/c/d.webp")


def test_an_extension_counts_in_any_case(tmp_path: Path) -> None:
    touch(tmp_path, "a.JPG", "b.Png", "notes.txt", "jpg")
    assert list_photos(tmp_path).names == ("a.JPG", "b.Png")


def test_links_are_followed_and_a_circle_of_them_ends(tmp_path: Path) -> None:
    touch(tmp_path, "elsewhere/1.jpg", "photos/2.jpg")
    (tmp_path / "photos/link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "photos/link.jpg").symlink_to(tmp_path / "elsewhere/1.jpg")
    (tmp_path / "elsewhere/back").symlink_to(tmp_path / "photos")
    assert list_photos(tmp_path / "photos").names == ("2.jpg", "link.jpg", "link/1.jpg")


def test_hidden_files_and_folders_are_left_out(tmp_path: Path) -> None:
    touch(tmp_path, "a.jpg", ".b.jpg", ".thumbnails/c.jpg")
    assert list_photos(tmp_path).names == ("a.jpg",)


def test_names_that_are_not_utf8_are_kept(tmp_path: Path) -> None:
    name = os.fsdecode(b"\xff\xfe.jpg")
    touch(tmp_path, name)
    photos = list_photos(tmp_path)
    assert photos.names == (name,)
    assert len(photos.sha256()) == 64


def test_a_missing_folder_and_one_without_photos_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such folder"):
        list_photos(tmp_path / "gone")
    touch(tmp_path, "notes.txt")
    with pytest.raises(UserError, match="no photos in it"):
        list_photos(tmp_path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_folder_that_cannot_be_read_is_not_passed_over(tmp_path: Path) -> None:
    touch(tmp_path, "a.jpg", "locked/b.jpg")
    (tmp_path / "locked").chmod(0)
    try:
        with pytest.raises(UserError, match="locked: cannot be read"):
            list_photos(tmp_path)
    finally:
        (tmp_path / "locked").chmod(0o700)


def test_the_list_hash_knows_the_names_and_their_borders(tmp_path: Path) -> None:
    for folder, names in (("one", ["a.jpg", "b.jpg"]), ("same", ["b.jpg", "a.jpg"]), ("other", ["a.jpg", "c.jpg"])):
        touch(tmp_path / folder, *names)
    one, same, other = (list_photos(tmp_path / folder).sha256() for folder in ("one", "same", "other"))
    assert one == same != other


def test_a_numeric_stem_is_the_coco_id() -> None:
    assert image_ids(["000000000139.jpg", "train/42.png"]) == (139, 42)


def test_a_name_is_hashed_to_a_stable_id() -> None:
    # SHA-256 of the path, its first 63 bits.
    assert image_ids(["cat.jpg", "photos/ünï.jpg"]) == (375762793526705882, 6246985361669078623)


def test_a_number_used_twice_is_hashed() -> None:
    first, second, third = image_ids(["a/1.jpg", "b/01.jpg", "2.jpg"])
    assert third == 2
    assert len({first, second, 1, 2}) == 4


@given(st.lists(st.text(st.characters(codec="utf-8"), min_size=1, max_size=8), unique=True, max_size=20))
def test_ids_are_different_and_fit_int64(names: list[str]) -> None:
    ids = image_ids(names)
    assert len(set(ids)) == len(names)
    assert all(0 <= number < 2**63 for number in ids)


sides = st.integers(1, 5000)


@given(sides, sides, st.integers(32, 1000), st.integers(0, 1000), st.sampled_from([16, 32]))
def test_input_sizes_are_whole_cells_within_half_a_cell_of_the_aim(
    height: int, width: int, short_side: int, more: int, stride: int
) -> None:
    long_side = short_side + more
    scale = min(short_side / min(height, width), long_side / max(height, width))
    for aim, size in zip(
        (height * scale, width * scale), input_size(height, width, short_side, long_side, stride), strict=True
    ):
        assert size % stride == 0
        assert stride <= size <= max(stride, long_side)
        assert abs(size - aim) <= stride / 2 or size in (stride, long_side // stride * stride)


@given(sides, sides)
def test_input_size_turns_with_the_photo(height: int, width: int) -> None:
    assert input_size(height, width, 800, 1333, 32) == input_size(width, height, 800, 1333, 32)[::-1]


def test_input_size_known_values() -> None:
    assert input_size(480, 640, 480, 800, 32) == (480, 640)
    assert input_size(1000, 4000, 480, 800, 32) == (192, 800)


@settings(deadline=None, max_examples=50)
@given(st.lists(st.integers(1, 3), max_size=20), st.integers(1, 5))
def test_batches_hold_each_photo_once_and_one_size_each(sizes: list[int], batch_size: int) -> None:
    photos = [Photo(index, (1, 1), np.zeros((size, 1, 3), np.uint8)) for index, size in enumerate(sizes)]
    batches = list(batch_by_size(photos, batch_size))
    assert sorted(photo.index for batch in batches for photo in batch) == list(range(len(photos)))
    assert all(0 < len(batch) <= batch_size for batch in batches)
    assert all(len({photo.pixels.shape for photo in batch}) == 1 for batch in batches)
    assert [[p.index for p in batch] for batch in batch_by_size(iter(photos), batch_size)] == [
        [p.index for p in batch] for batch in batches
    ]


def photo(path: Path, height: int, width: int) -> Path:
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[:, width // 2 :] = 255
    Image.fromarray(pixels).save(path)
    return path


def test_a_photo_is_resized_and_keeps_its_own_size(tmp_path: Path) -> None:
    loaded = load_photo(photo(tmp_path / "a.png", 100, 200), 7, 64, 128, 32)
    assert (loaded.index, loaded.size, loaded.pixels.shape, loaded.error) == (7, (100, 200), (64, 128, 3), None)
    assert loaded.pixels[:, :60].max() == 0
    assert loaded.pixels[:, 68:].min() == 255


def test_a_photo_that_cannot_be_read_comes_with_its_error(tmp_path: Path) -> None:
    loaded = load_photo(tmp_path / "gone.jpg", 3, 64, 128, 32)
    assert (loaded.index, loaded.error) == (3, "does not exist")


@pytest.mark.parametrize("ahead", [1, 4, 100])
def test_photos_come_in_order_whatever_the_threads(tmp_path: Path, ahead: int) -> None:
    # The first ones are the slowest.
    paths = [photo(tmp_path / f"{index}.png", 800 // (index + 1), 800) for index in range(8)]
    loaded = list(load_photos([*paths, tmp_path / "gone.png"], 32, 64, 32, threads=4, ahead=ahead))
    assert [item.index for item in loaded] == list(range(9))
    assert [item.size[0] for item in loaded] == [*(800 // (index + 1) for index in range(8)), 0]
