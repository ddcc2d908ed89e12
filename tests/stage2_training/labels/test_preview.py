import tracemalloc

import numpy as np
import pytest
from PIL import Image

from stage1_proposals.common.drawing import GAP, OPACITY, palette
from stage1_proposals.common.errors import UserError
from stage2_training.labels.preview import CROWD, TILE, draw_sheet


def labels(*annotations):
    images = [{"id": number, "file_name": f"{number}.png", "height": 50, "width": 100} for number in (1, 2, 3)]
    shapes = [{"category_id": 1, "iscrowd": 0, "area": 1, "bbox": [0, 0, 1, 1], **one} for one in annotations]
    return {"images": images, "annotations": shapes, "categories": [{"id": 1, "name": "cat"}]}


def square(x, y, side=20):
    return [[x, y, x + side, y, x + side, y + side, x, y + side]]


@pytest.fixture
def images(tmp_path):
    for number in (1, 2, 3):
        Image.new("RGB", (100, 50), (100, 100, 100)).save(tmp_path / f"{number}.png")
    return tmp_path


def pixels(path):
    return np.asarray(Image.open(path).convert("RGB")).astype(int)


def test_masks_crowds_and_names_are_drawn(images, tmp_path):
    group = {"size": [50, 100], "counts": [50 * 80, 50 * 20]}  # the right fifth
    shapes = [
        {"image_id": 2, "segmentation": square(10, 10), "bbox": [10, 10, 20, 20]},
        {"image_id": 2, "segmentation": group, "iscrowd": 1},
    ]
    assert draw_sheet(labels(*shapes), images, tmp_path / "sheet.png", 1) == 1
    sheet = pixels(tmp_path / "sheet.png")
    assert sheet.shape == (TILE + 2 * GAP, TILE + 2 * GAP, 3)
    tile = sheet[GAP + TILE // 4 : GAP + 3 * TILE // 4, GAP : GAP + TILE]
    colour = np.array(palette(2)[0])
    inside = tile[110, 110]  # of the square that ends at 120
    assert np.abs(inside - (100 + OPACITY * (colour - 100))).max() <= 1
    assert (tile[100, 20] == 100).all()
    assert np.abs(tile[100, 390] - (100 + OPACITY * (np.array(CROWD) - 100))).max() <= 1
    name = tile[32:40, 40:57]  # above the square
    assert (name == colour).all(2).mean() > 0.4  # its ground
    assert name.max(2).min() < 40  # its letters, whose edges are soft


def test_images_with_labels_come_first(images, tmp_path):
    shape = {"image_id": 3, "segmentation": square(10, 10)}
    assert draw_sheet(labels(shape), images, tmp_path / "sheet.png", 9) == 3
    sheet = pixels(tmp_path / "sheet.png")
    coloured = (np.ptp(sheet, axis=2) > 20).any(0).nonzero()[0]
    assert 0 < coloured.max() < GAP + TILE


def test_large_images_with_many_objects_take_little_memory(tmp_path):
    side, count = 2000, 20
    Image.new("RGB", (side, side), (100, 100, 100)).save(tmp_path / "1.png")
    shapes = [{"image_id": 1, "segmentation": square(90 * n, 90 * n, 80)} for n in range(count)]
    coco = labels(*shapes)
    coco["images"] = [{"id": 1, "file_name": "1.png", "height": side, "width": side}]
    tracemalloc.start()
    draw_sheet(coco, tmp_path, tmp_path / "sheet.png", 1)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 50e6  # the image takes 12 MB, all masks together 80 MB


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: path.unlink(), "1.png: does not exist"),
        (lambda path: path.write_bytes(b"no image"), "1.png: is not an image"),
        (lambda path: Image.new("RGB", (50, 100)).save(path), "1.png: is 50 x 100 pixels, but its labels are for 100"),
    ],
)
def test_an_image_that_does_not_fit_its_labels_is_named(images, tmp_path, damage, message):
    damage(images / "1.png")
    with pytest.raises(UserError, match=message):
        draw_sheet(labels(), images, tmp_path / "sheet.png", 3)
