"""Images found by the paths that a file gives."""

from pathlib import Path

import pytest

from stage1_proposals.common.errors import UserError
from stage1_proposals.common.image_paths import coco_roots, find_image, find_root, image_finder, repeated_names


def test_images_are_found_by_path_or_by_a_name_that_only_one_has() -> None:
    find = image_finder({"a/1.jpg": "a1", "b/1.jpg": "b1", "b/2.jpg": "b2", "3.jpg": "3", "c/3.jpg": "c3"})
    paths = ("a/1.jpg", "1.jpg", "2.jpg", "z/2.jpg", "3.jpg", "z/3.jpg", "4.jpg")
    assert [find(path) for path in paths] == ["a1", None, "b2", "b2", "3", None, None]


def test_the_root_is_the_first_folder_with_the_first_image_that_exists(tmp_path: Path) -> None:
    path = tmp_path / "annotations" / "instances_val2017.json"
    roots = coco_roots(path)
    assert roots[0] == path.parent
    assert tmp_path / "val2017" in roots
    (tmp_path / "val2017").mkdir()
    (tmp_path / "val2017" / "b.jpg").touch()
    assert find_root(path, roots, ["a.jpg", "b.jpg"], "--here") == tmp_path / "val2017"
    with pytest.raises(
        UserError, match=r"val2017\.json: none of its 1 images is under .*; say where they are with --he"
    ):
        find_root(path, roots, ["a.jpg"], "--here")
    with pytest.raises(UserError, match=r"val2017\.json: names no images$"):
        find_root(path, roots, [], "--here")


def test_a_name_that_several_have_on_either_side_is_no_match() -> None:
    ambiguous = repeated_names(["x/1.jpg", "y\\1.jpg", "z/2.jpg"])
    assert ambiguous == {"1.jpg"}
    find = image_finder({"1.jpg": "one", "2.jpg": "two"}, ambiguous)
    assert [find(path) for path in ("x/1.jpg", "y/1.jpg", "z/2.jpg", "1.jpg")] == [None, None, "two", "one"]


def test_paths_of_windows_and_with_dots_match() -> None:
    find = image_finder({"a\\1.jpg": "a", "./b/1.jpg": "b"})
    assert [find(path) for path in ("a/1.jpg", "b/1.jpg", "b\\1.jpg")] == ["a", "b", "b"]


def test_an_image_is_found_as_named_or_as_named_on_windows(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    for name in ("a/1.jpg", "a\\2.jpg", "3.jpg"):
        (tmp_path / name).touch()
    paths = [
        "a/1.jpg",
        "a\\1.jpg",
        "a\\2.jpg",
        "C:\\Users\\me\\3.jpg",
        "/home/me/3.jpg",
        "../x/3.jpg",
        "b/3.jpg",
        "4.jpg",
    ]
    assert [find_image(tmp_path, path) for path in paths] == [
        "a/1.jpg",
        "a/1.jpg",
        "a\\2.jpg",
        "3.jpg",
        "3.jpg",
        "3.jpg",
        None,
        None,
    ]
    assert find_root(tmp_path / "l.json", [tmp_path / "a", tmp_path], ["a\\1.jpg"], "--here") == tmp_path
    with pytest.raises(UserError, match=r"with --here; the first is 'gone\\\\1\.jpg'"):
        find_root(tmp_path / "l.json", [tmp_path], ["gone\\1.jpg"], "--here")


def test_the_images_of_cvats_subsets_are_found(tmp_path: Path) -> None:
    assert tmp_path / "images" / "default" in coco_roots(tmp_path / "annotations" / "instances_default.json")


def test_an_image_is_found_by_a_name_that_no_other_path_has_if_that_is_asked(tmp_path: Path) -> None:
    for name in ("1.jpg", "2.jpg"):
        (tmp_path / name).touch()
    paths = ["images/1.jpg", "a/2.jpg", "b/2.jpg"]
    ambiguous = repeated_names(paths)
    assert [find_image(tmp_path, path, ambiguous) for path in paths] == ["1.jpg", None, None]
    assert find_root(tmp_path / "l.json", [tmp_path], paths, "--here", ambiguous) == tmp_path


@pytest.mark.parametrize(("named", "on_disk"), [("\u00e9.jpg", "e\u0301.jpg"), ("e\u0301.jpg", "\u00e9.jpg")])
def test_an_image_is_found_in_another_unicode_form(tmp_path: Path, named: str, on_disk: str) -> None:
    (tmp_path / on_disk).touch()
    assert find_image(tmp_path, named) == on_disk
    (tmp_path / named).touch()
    assert find_image(tmp_path, named) == named


def test_folders_tried_and_urls_are_told_in_one_short_line(tmp_path: Path) -> None:
    path = tmp_path / "set" / "instances_train.json"
    with pytest.raises(
        UserError,
        match=f"is under {path.parent} or the folder above it, nor in `train/`, `images/` or `images/train/` of "
        "either; images are not downloaded; say where they are with --here; the first is 'https://host/a.jpg'$",
    ):
        find_root(path, coco_roots(path), ["https:/host/a.jpg"], "--here")
