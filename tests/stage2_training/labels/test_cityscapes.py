"""Against the ids, groups and classes of MMDetection, which `tests/miniatures.py` draws, and slow reference code."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from stage1_proposals.common.errors import UserError
from stage2_training.labels import cityscapes
from stage2_training.labels.cityscapes import (
    CLASSES,
    check_complete,
    convert_cityscapes,
    read_objects,
    write_annotations,
)
from stage2_training.labels.conversion import LabelError
from tests import miniatures

LABEL = "gtFine/train/aachen/aachen_000000_000019_gtFine_instanceIds.png"
IMAGE = "leftImg8bit/train/aachen/aachen_000000_000019_leftImg8bit.png"


@pytest.fixture
def root(tmp_path):
    return miniatures.cityscapes(tmp_path)


def test_a_split_becomes_coco(root):
    converted = convert_cityscapes(root, "train", expected=4)
    assert converted["info"].keys() == {"description", "url"}
    assert [image["file_name"] for image in converted["images"]] == [
        f"leftImg8bit/train/{city}/{city}_{number:06d}_000019_leftImg8bit.png"
        for city in ("aachen", "bochum")
        for number in (0, 1)
    ]
    assert [image["id"] for image in converted["images"]] == [1, 2, 3, 4]
    assert [(one["id"], one["name"]) for one in converted["categories"]] == list(CLASSES.items())
    coco = COCO(write_annotations(root, "train"))
    numbers = miniatures.instance_map()
    # The caravan, which evaluation ignores, the road and the sky are no objects; the people are a group.
    expected = [(24, 24, 1), (25000, 25, 0), (26000, 26, 0), (26001, 26, 0)]
    objects = coco.imgToAnns[3]
    for annotation, (number, category, crowd) in zip(objects, expected, strict=True):
        assert (annotation["category_id"], annotation["iscrowd"]) == (category, crowd)
        mask = coco.annToMask(annotation)
        assert (mask == (numbers == number)).all()
        rows, columns = np.nonzero(mask)
        assert annotation["area"] == len(rows)
        assert annotation["bbox"] == [columns.min(), rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1]
    assert sorted(coco.anns) == list(range(1, 17))


@settings(deadline=None, max_examples=20)
@given(data=st.data())
def test_every_pixel_of_an_object_is_in_its_mask_and_no_other(tmp_path_factory, data):
    ids = st.sampled_from([0, 7, 23, 24, 26, 29, 33, 24000, 26000, 26999, 29001, 33000, 33001])
    height, width = data.draw(st.integers(1, 6)), data.draw(st.integers(1, 6))
    rows = data.draw(st.lists(st.lists(ids, min_size=width, max_size=width), min_size=height, max_size=height))
    numbers = np.array(rows, np.uint16)
    path = tmp_path_factory.mktemp("maps") / "map.png"
    Image.fromarray(numbers).save(path)
    size, objects = read_objects(path)
    assert size == numbers.shape
    drawn = np.zeros_like(numbers)
    for annotation in objects:
        mask = coco_mask.decode(annotation["segmentation"]).astype(bool)
        (number,) = np.unique(numbers[mask])
        assert annotation["category_id"] == (number if annotation["iscrowd"] else number // 1000)
        drawn[mask] = number
    things = np.isin(numbers, list(CLASSES)) | np.isin(numbers // 1000, list(CLASSES))
    assert (drawn == np.where(things, numbers, 0)).all()


def test_several_processes_read_many_images_with_the_same_result(root, monkeypatch):
    alone = convert_cityscapes(root, "train")
    monkeypatch.setattr(cityscapes, "_IMAGES_PER_PROCESS", 2)
    monkeypatch.setattr(cityscapes.os, "sched_getaffinity", lambda process: range(2))
    assert convert_cityscapes(root, "train") == alone
    (root / LABEL).write_bytes(b"no picture")
    skipped = []
    assert len(convert_cityscapes(root, "train", skipped)["images"]) == 3
    assert len(skipped) == 1


def save(array):
    return lambda path: Image.fromarray(array).save(path)


@pytest.mark.parametrize(
    ("name", "damage", "message"),
    [
        (
            LABEL,
            lambda path: path.unlink(),
            "instanceIds.png is missing; unpack gtFine again, or leave such",
        ),
        (LABEL, lambda path: path.write_bytes(b"no picture"), "instanceIds.png cannot be read as an image"),
        (LABEL, lambda path: path.write_bytes(path.read_bytes()[:150]), "instanceIds.png cannot be read as an image"),
        (LABEL, save(np.zeros((48, 64, 3), np.uint8)), "instanceIds.png is no map of instance numbers"),
        (LABEL, save(np.zeros((48, 60), np.uint16)), "60 x 48 pixels, but its image 64 x 48; unpack both again"),
        (IMAGE, lambda path: path.write_bytes(b"no picture"), "leftImg8bit.png cannot be read as an image"),
    ],
)
def test_a_malformed_label_is_named_or_left_out_and_recorded(root, name, damage, message):
    damage(root / name)
    with pytest.raises(UserError, match=message):
        convert_cityscapes(root, "train")
    skipped = []
    converted = convert_cityscapes(root, "train", skipped, expected=4)
    assert [image["id"] for image in converted["images"]] == [2, 3, 4]
    assert {annotation["image_id"] for annotation in converted["annotations"]} == {2, 3, 4}
    assert converted["info"]["skipped"] == skipped
    assert str(root / name) in skipped[0]


def test_a_part_is_refused_or_noted(root):
    check_complete(root, "val", 4)
    with pytest.raises(UserError, match=r"leftImg8bit/train: 4 images, not the 2,975 .*cityscapes-dataset.*--partial"):
        check_complete(root, "train", 2975)
    note = json.loads(write_annotations(root, "train", None, 2975).read_text())["info"]["partial"]
    assert note == {"found": 4, "expected": 2975}


def test_a_missing_folder_is_named(root, tmp_path):
    (root / "gtFine" / "val").rename(root / "gtFine" / "other")
    with pytest.raises(UserError, match=r"gtFine/val is missing: get Cityscapes at https://www\.cityscapes-dataset"):
        convert_cityscapes(root, "val")
    (root / "leftImg8bit" / "test").mkdir()
    (root / "gtFine" / "test").mkdir()
    with pytest.raises(UserError, match="leftImg8bit/test holds no CITY/"):
        convert_cityscapes(root, "test")


@pytest.mark.parametrize("number", [26001 % 256, 34, 34000, 65535, 999, 1000 * 5])
def test_numbers_of_no_class_are_refused(tmp_path, number):
    """Numbers cut to 8 bits lose objects, since most of them become those of no class."""
    numbers = np.full((4, 4), 7, np.uint16)
    numbers[1] = number
    Image.fromarray(numbers.astype(np.uint8) if number < 256 else numbers).save(tmp_path / "map.png")
    bits = 8 if number < 256 else 16
    with pytest.raises(LabelError, match=rf"map\.png .*the number {number}, which no class has; it has {bits} bits"):
        read_objects(tmp_path / "map.png")
