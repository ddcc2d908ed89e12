"""YOLO segmentation sets: what is read of them, in which layouts, and what is said of those that are malformed."""

from pathlib import Path

import numpy as np
import pytest

from stage1_proposals.common.errors import UserError
from stage1_proposals.common.label_files import ImageLabels, NewFiles, YoloWriter
from stage1_proposals.common.masks import encode_masks, to_mask
from stage2_training.labels.yolo import convert_yolo, has_validation
from tests import miniatures
from tests.miniatures import SIZE


def masks_of(coco: dict, name: str) -> list[np.ndarray]:
    (number,) = (image["id"] for image in coco["images"] if image["file_name"] == name)
    found = [one for one in coco["annotations"] if one["image_id"] == number]
    return [to_mask(one["segmentation"], SIZE).astype(bool) for one in found]


def test_polygons_become_objects_with_their_classes(tmp_path: Path) -> None:
    path = miniatures.yolo(tmp_path)
    coco, root, remarks = convert_yolo(path, None)
    assert (root, remarks) == (tmp_path, [])
    assert [image["file_name"] for image in coco["images"]] == [f"images/train/{number}.png" for number in range(4)]
    assert {(image["height"], image["width"]) for image in coco["images"]} == {SIZE}
    assert coco["categories"] == [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}]
    dog, cat = coco["annotations"][:2]
    assert (dog["category_id"], cat["category_id"]) == (2, 1)
    assert (cat["bbox"], cat["area"], cat["iscrowd"]) == ([32, 24, 16, 12], 16 * 12, 0)
    assert has_validation(path)
    assert [image["file_name"] for image in convert_yolo(path, None, split="val").coco["images"]] == [
        "images/val/4.png"
    ]


@pytest.mark.parametrize(
    ("text", "images"),
    [
        ("train: images/train\nnames: {0: cat, 1: dog}\n", 4),
        ("path: ../here\ntrain: [images/train, images/val]\nnames: [cat, dog]\n", 5),
        ("path: /datasets/gone\ntrain: ./images/train\nnames: [cat, dog]\n", 4),  # of another machine
        ("train: ../images/train\nnames: [cat, dog]\nnc: 2\n", 4),  # Roboflow's
        ("train: list.txt\nnames: [cat, dog]\n", 2),
        ("train: images\nnames: [cat, dog]\n", 5),
    ],
)
def test_layouts(tmp_path: Path, text: str, images: int) -> None:
    path = miniatures.yolo(tmp_path / "here")
    (tmp_path / "here" / "list.txt").write_text("./images/train/1.png\n\nimages/val/4.png\n")
    path.write_text(text)
    coco = convert_yolo(path, None).coco
    assert (len(coco["images"]), len(coco["annotations"])) == (images, 2 * images)
    assert not has_validation(path)
    # The paths of Windows, and a folder that is named on the command line.
    path.write_text(text.replace("/", "\\") if "[" not in text.split("names")[0] else text)
    assert len(convert_yolo(path, tmp_path / "here").coco["images"]) == images


def test_labels_beside_images_and_images_without_labels(tmp_path: Path) -> None:
    for number in (1, 2):
        miniatures.image(number, tmp_path / "all" / f"{number}.png")
    (tmp_path / "all" / "1.txt").write_text("0 0 0 1 0 1 1\n0 0 0 1 0 1 1\n\n")
    (tmp_path / "data.yaml").write_text("train: all\nval: all\nnames: [cat]\n")
    coco = convert_yolo(tmp_path / "data.yaml", None).coco
    assert [image["file_name"] for image in coco["images"]] == ["all/1.png", "all/2.png"]
    assert [one["image_id"] for one in coco["annotations"]] == [1]  # the same line twice is one object
    assert not has_validation(tmp_path / "data.yaml")


def test_texts_of_windows_are_read(tmp_path: Path) -> None:
    miniatures.image(1, tmp_path / "all" / "1.png")
    (tmp_path / "all" / "1.txt").write_text("\ufeff0 0 0 1 0 1 1\r\n", encoding="utf-8", newline="")
    (tmp_path / "train.txt").write_text("\ufeffall\\1.png\r\n", encoding="utf-8", newline="")
    (tmp_path / "data.yaml").write_text("train: train.txt\nnames: [cat]\n")
    coco = convert_yolo(tmp_path / "data.yaml", None).coco
    assert [image["file_name"] for image in coco["images"]] == ["all/1.png"]
    assert len(coco["annotations"]) == 1


def test_two_images_with_one_label_file_are_refused(tmp_path: Path) -> None:
    for name in ("1.png", "1.jpg"):
        miniatures.image(1, tmp_path / "all" / name)
    miniatures.image(2, tmp_path / "all" / "2.png")
    (tmp_path / "data.yaml").write_text("train: all\nval:\nnames: [cat]\n")
    (tmp_path / "all" / "2.txt").write_text("0 0 0 1 0 1 1\n")
    assert len(convert_yolo(tmp_path / "data.yaml", None, split="val").coco["images"]) == 3  # neither has labels
    (tmp_path / "all" / "1.txt").write_text("0 0 0 1 0 1 1\n")
    with pytest.raises(UserError, match=r"all/1.txt: would label \S+all/1.jpg and 1.png; rename one of the images$"):
        convert_yolo(tmp_path / "data.yaml", None)


def test_what_was_written_is_read_as_the_same_masks(tmp_path: Path) -> None:
    miniatures.image(1, tmp_path / "photos" / "a" / "1.png")
    masks = np.zeros((3, *SIZE), bool)
    masks[0, 4:14, 20:31] = True
    masks[1, 10:40, 10:40] = masks[1, 2:8, 50:60] = True
    masks[1, 20:30, 15:35] = False
    masks[2] = np.add.outer(np.arange(SIZE[0]), np.arange(SIZE[1])) < 20
    writer = YoloWriter(tmp_path / "out", tmp_path / "photos", ["cat", "犬"], NewFiles())
    counts = [rle["counts"] for rle in encode_masks(masks)]
    writer.write(ImageLabels(7, "a/1.png", SIZE, counts, [0.75, 0.5, 0.25], [1, 0, 1]))
    writer.close()
    coco = convert_yolo(tmp_path / "out" / "yolo" / "data.yaml", None).coco
    assert [one["category_id"] for one in coco["annotations"]] == [2, 1, 2]
    assert [category["name"] for category in coco["categories"]] == ["cat", "犬"]
    for found, mask in zip(masks_of(coco, "images/a/1.png"), masks, strict=True):
        assert (found & mask).sum() >= 0.98 * (found | mask).sum()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("0 0.5 0.5 0.2 0.2", "is a box without a mask; export the labels as polygons"),
        ("2 0 0 1 0 1 1", "has the class '2'; there are 0 to 1"),
        ("cat 0 0 1 0 1 1", "has the class 'cat'; there are 0 to 1"),
        ("0 0 0 1 0 1", "is a box without a mask"),
        ("0 0 0 1 0", "is a box without a mask"),
        ("0 0 0 1 0 1 1 1", "has 7 coordinates; a polygon has x and y of three or more points"),
        ("0 0 0 64 0 64 48", "has the coordinate 64, which is no fraction of the image's width or height"),
        ("0 0 0 nan 0 1 1", "has the coordinate nan, which is no fraction"),
        ("0 0 0 x 0 1 1", "is no class with points (could not convert string to float: 'x')"),
        ("0 0 0 0 0 0 0", "has no pixel inside its image"),
    ],
)
def test_a_malformed_line_is_named_and_its_image_can_be_left_out(tmp_path: Path, line: str, message: str) -> None:
    path = miniatures.yolo(tmp_path)
    labels = tmp_path / "labels" / "train" / "2.txt"
    labels.write_text(f"0 0 0 1 0 1 1\n\n{line}\n")
    if len(line.split()) == 6:
        message = "has 5 coordinates; a polygon has x and y of three or more points"
    with pytest.raises(UserError) as raised:
        convert_yolo(path, None)
    assert str(raised.value).startswith(f"{labels}: line 3 {message}")
    assert str(raised.value).endswith("or leave such images out with OPTS=--skip-malformed")
    skipped: list[str] = []
    coco = convert_yolo(path, None, skipped).coco
    assert [Path(image["file_name"]).stem for image in coco["images"]] == ["0", "1", "3"]
    assert {one["image_id"] for one in coco["annotations"]} == {1, 2, 3}
    assert len(skipped) == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[", "data.yaml: not YAML ("),
        ("a: 1", "data.yaml: not a YOLO set, which has `train` and `names`; correct the file"),
        ("train: images/train\nnames: cat", "data.yaml: `names` must be a list of names, or names by number"),
        ("train: images/train\nnames: {1: cat}", "data.yaml: `names` must have the numbers from 0 to 0"),
        ("train: images/train\nnames: [cat, ' cat']", "data.yaml: `names` has 'cat' 2 times"),
        ("train: none\nnames: [cat]", "data.yaml: `train` names 'none', which is not in "),
        ("train: labels\nnames: [cat]", "data.yaml: no images in `train` ('labels')"),
        ("train: more\nnames: [cat]", "data.yaml: none of its 1 images has labels; "),
    ],
)
def test_a_set_that_is_none_is_refused(tmp_path: Path, text: str, message: str) -> None:
    path = miniatures.yolo(tmp_path)
    miniatures.image(9, tmp_path / "more" / "9.png")
    path.write_text(text)
    with pytest.raises(UserError) as raised:
        convert_yolo(path, None)
    assert message in str(raised.value)
    assert len(str(raised.value).splitlines()) == 1
