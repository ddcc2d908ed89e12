"""Images found by the paths that a file gives."""

from pathlib import Path

import pytest

from stage1_proposals.common.errors import UserError
from stage1_proposals.common.image_paths import coco_roots, find_root, image_finder


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
