import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mmdet.structures.mask import BitmapMasks
from mmengine.dataset import Compose
from mmengine.registry import init_default_scope
from PIL import Image

from stage1_proposals.common.errors import UserError
from stage2_training.data import (
    BoxesFromMasks,
    LoadPseudoLabels,
    LoadRGBImage,
    PackPseudoLabels,
    RandomTile,
    RunLengthMasks,
)

HEIGHT, WIDTH = 48, 64


@pytest.fixture(autouse=True)
def mmdet_scope():
    init_default_scope("mmdet")


def write_oriented(path, pixels: np.ndarray, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(pixels).save(path, exif=exif)


class TestLoadImage:
    def test_gives_rgb_and_sizes(self, tmp_path):
        pixels = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "a.png")
        results = LoadRGBImage().transform({"img_path": str(tmp_path / "a.png")})
        assert np.array_equal(results["img"], pixels)
        assert results["img_shape"] == results["ori_shape"] == (5, 7)

    def test_applies_exif_orientation(self, tmp_path):
        pixels = np.zeros((4, 6, 3), np.uint8)
        pixels[0, 0] = 255
        write_oriented(tmp_path / "a.png", pixels, 6)  # turned a quarter clockwise for display
        results = LoadRGBImage().transform({"img_path": str(tmp_path / "a.png"), "height": 6, "width": 4})
        assert results["img"].shape == (6, 4, 3)
        assert (results["img"][0, 3] == 255).all()

    def test_refuses_an_image_of_another_size(self, tmp_path):
        Image.new("RGB", (7, 5)).save(tmp_path / "a.png")
        with pytest.raises(UserError, match=r"a\.png: is 7 x 5 pixels, but its labels are for 5 x 7"):
            LoadRGBImage().transform({"img_path": str(tmp_path / "a.png"), "height": 7, "width": 5})

    def test_names_an_image_it_cannot_read(self, tmp_path):
        (tmp_path / "a.png").write_bytes(b"no image")
        with pytest.raises(UserError, match=r"a\.png: is not an image.*put the image back"):
            LoadRGBImage().transform({"img_path": str(tmp_path / "a.png")})


def test_pseudo_labels_land_where_stage_1_saw_them_on_a_rotated_image(tmp_path, make_record):
    """The record is in displayed coordinates; the bright square of the stored pixels lies under its mask."""
    stored = np.zeros((24, 40, 3), np.uint8)
    stored[2:8, 3:12] = 255
    write_oriented(tmp_path / "a.png", stored, 6)
    displayed = np.rot90(stored, -1)
    record = make_record(1, "a.png", (displayed[None, ..., 0] > 0).astype(np.uint8), np.ones((1, 4)))
    results = {
        "img_path": str(tmp_path / "a.png"),
        "height": 40,
        "width": 24,
        "record": record,
        "labels": np.zeros(1, int),
    }
    packed = Compose([LoadRGBImage(), LoadPseudoLabels(), {"type": "RandomFlip", "prob": 1.0}, PackPseudoLabels()])(
        results
    )
    mask = torch.from_numpy(packed["data_samples"].gt_instances.masks.masks[0]).bool()
    assert torch.equal(packed["inputs"][0] > 0, mask)
    assert mask.sum() == 54


@st.composite
def proposals(draw):
    """Rectangle masks, many of them thin, one feature each whose first entry tells which it is."""
    boxes = []
    for _ in range(draw(st.integers(0, 6))):
        y, x = draw(st.integers(0, HEIGHT - 2)), draw(st.integers(0, WIDTH - 2))
        height, width = draw(st.sampled_from([1, 2, 5, 30])), draw(st.sampled_from([1, 2, 5, 30]))
        boxes.append((y, x, min(y + height, HEIGHT), min(x + width, WIDTH)))
    return boxes


@settings(deadline=None, max_examples=60)
@given(
    boxes=proposals(), scale=st.sampled_from([(8, 8), (20, 16), (64, 48), (90, 70)]), flip=st.sampled_from([0.0, 1.0])
)
def test_seed_features_stay_with_their_masks(make_record, rectangles, boxes, scale, flip):
    masks = rectangles(boxes, HEIGHT, WIDTH)
    features = np.zeros((len(boxes), 4))
    features[:, 0] = np.arange(len(boxes))
    results = {
        "img": np.zeros((HEIGHT, WIDTH, 3), np.uint8),
        "img_shape": (HEIGHT, WIDTH),
        "record": make_record(1, "a.png", masks, features),
        "labels": 10 + np.arange(len(boxes)),
    }
    shape = [{"type": "Resize", "scale": scale, "keep_ratio": True}, {"type": "RandomFlip", "prob": flip}]
    instances = Compose([LoadPseudoLabels(), *shape, BoxesFromMasks(), PackPseudoLabels()])(results)[
        "data_samples"
    ].gt_instances

    assert instances.seed_features.dtype == torch.float32
    assert len(instances.bboxes) == len(instances.labels) == len(instances.masks) == len(instances.seed_features)
    assert (instances.masks.areas >= 1).all()
    alone = [transformed_alone(mask, shape) for mask in masks]
    survivors = [index for index, mask in enumerate(alone) if mask.any()]
    kept = instances.seed_features[:, 0].int().tolist()
    assert set(survivors) <= set(kept)
    assert (instances.labels - 10).tolist() == kept == sorted(kept)
    for mask, index in zip(instances.masks.masks, kept, strict=True):
        assert np.array_equal(mask, alone[index]) if index in survivors else mask.sum() == 1  # FEW_PIXELS


def transformed_alone(mask: np.ndarray, shape: list[dict]) -> np.ndarray:
    """What resizing and flipping make of one mask, by MMDetection's transforms, without any other mask."""
    results = {
        "img": np.zeros((HEIGHT, WIDTH, 3), np.uint8),
        "img_shape": (HEIGHT, WIDTH),
        "gt_masks": BitmapMasks(mask[None], HEIGHT, WIDTH),
    }
    return Compose(shape)(results)["gt_masks"].masks[0]


@settings(deadline=None, max_examples=30)
@given(boxes=proposals(), empty=st.sets(st.integers(0, 5)))
def test_dropping_takes_everything_of_an_instance_along(make_record, rectangles, boxes, empty):
    masks = rectangles(boxes, HEIGHT, WIDTH)
    masks[[index for index in empty if index < len(boxes)]] = 0
    record = make_record(1, "a.png", masks, np.arange(4 * len(boxes)).reshape(-1, 4))
    results = LoadPseudoLabels().transform({"record": record, "labels": np.arange(len(boxes))})
    results["gt_ignore_flags"] = np.arange(len(boxes)) % 2 == 0
    BoxesFromMasks().transform(results)
    kept = [index for index, mask in enumerate(masks) if mask.any()]
    assert np.array_equal(results["gt_seed_features"], record.feature[kept])
    assert np.array_equal(results["gt_bboxes"].numpy(), record.bbox[kept])
    assert np.array_equal(results["gt_masks"].masks, masks[kept])
    assert np.array_equal(results["gt_ignore_flags"], [index % 2 == 0 for index in kept])
    assert results["gt_bboxes_labels"].tolist() == kept


@pytest.mark.parametrize("kept_as", ["bitmaps", "run lengths"])
@pytest.mark.parametrize("side", [16, 40, 1000])
def test_a_tile_is_a_random_part_of_the_image_with_its_instances(make_record, rectangles, kept_as, side):
    """Each mask moves with the pixels below it; those of which nothing is left go, with all that belongs to them."""
    boxes = [(y, x, y + 5, x + 7) for y in range(0, HEIGHT - 5, 9) for x in range(0, WIDTH - 7, 11)]
    masks = rectangles(boxes, HEIGHT, WIDTH)
    pixels = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    for number, mask in enumerate(masks):
        pixels[mask > 0] = number + 1
    corners = set()
    for seed in range(20):
        np.random.seed(seed)
        record = make_record(1, "a.png", masks, np.arange(len(boxes))[:, None] + [0.0, 0, 0, 0])
        results = LoadPseudoLabels().transform({"record": record, "labels": np.arange(len(boxes)), "img": pixels})
        if kept_as == "bitmaps":
            results["gt_masks"] = BitmapMasks(masks, HEIGHT, WIDTH)
        results = BoxesFromMasks().transform(RandomTile(side).transform(results))
        shape = (min(side, HEIGHT), min(side, WIDTH))
        assert results["img"].shape[:2] == results["img_shape"] == shape
        kept = results["gt_bboxes_labels"]
        assert set(kept + 1) == set(np.unique(results["img"])) - {0}
        assert results["gt_seed_features"][:, 0].tolist() == kept.tolist()
        assert np.array_equal(results["gt_bboxes"].numpy(), results["gt_masks"].get_bboxes("hbox").numpy())
        for number, mask in zip(kept, results["gt_masks"].masks, strict=True):
            assert np.array_equal(mask > 0, results["img"][..., 0] == number + 1)
        corners.add(results["img"].tobytes())
    assert len(corners) == 1 if side == 1000 else len(corners) > 15


ROTATE = {"type": "Rotate", "prob": 1.0, "min_mag": 10.0, "max_mag": 10.0, "img_border_value": (124, 116, 104)}
GEOMETRIC_STEPS = {
    "Resize": [{"type": "Resize", "scale": (40, 40), "keep_ratio": True}],
    "RandomResize": [{"type": "RandomResize", "scale": [(100, 40), (100, 90)], "keep_ratio": True}],
    "RandomFlip": [{"type": "RandomFlip", "prob": 1.0}],
    "Rotate": [ROTATE],
    "all": [{"type": "Resize", "scale": (90, 90), "keep_ratio": True}, {"type": "RandomFlip", "prob": 1.0}, ROTATE],
}


@pytest.mark.parametrize("kept_as", ["bitmaps", "run lengths"])
@pytest.mark.parametrize("steps", GEOMETRIC_STEPS)
def test_boxes_are_tight_after_each_geometric_step(steps, kept_as):
    """Of 40 discs and bars anywhere in the image, some at its border."""
    from mmdet.structures.bbox import HorizontalBoxes
    from mmdet.structures.mask import BitmapMasks
    from pycocotools import mask as coco_mask

    rng = np.random.default_rng(0)
    y, x = np.ogrid[:HEIGHT, :WIDTH]
    masks = np.stack(
        [
            (abs(y - rng.integers(HEIGHT)) < rng.integers(1, 9)) & (abs(x - rng.integers(WIDTH)) < rng.integers(1, 9))
            if number % 2
            else (y - rng.integers(HEIGHT)) ** 2 + (x - rng.integers(WIDTH)) ** 2 < rng.integers(1, 99)
            for number in range(40)
        ]
    ).astype(np.uint8)
    rles = coco_mask.encode(np.asfortranarray(masks.transpose(1, 2, 0)))
    x1, y1, width, height = coco_mask.toBbox(rles).T
    size = (HEIGHT, WIDTH)
    results = {
        "img": np.zeros((*size, 3), np.uint8),
        "img_shape": size,
        "gt_bboxes": HorizontalBoxes(torch.from_numpy(np.stack([x1, y1, x1 + width, y1 + height], 1)).float()),
        "gt_masks": BitmapMasks(masks, *size)
        if kept_as == "bitmaps"
        else RunLengthMasks([rle["counts"] for rle in rles], size),
    }
    np.random.seed(0)
    results = Compose([*GEOMETRIC_STEPS[steps], BoxesFromMasks()])(results)
    assert len(results["gt_masks"]) > 30
    for mask, box in zip(results["gt_masks"].masks, results["gt_bboxes"].numpy(), strict=True):
        ys, xs = np.nonzero(mask)
        assert box.tolist() == [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]


@pytest.mark.parametrize("kept", [True, False])
def test_an_instance_whose_box_rotation_clips_to_no_height_keeps_its_mask(kept):
    """Its box, of a row of an image made smaller, turns to above the image; the pixels' centres do so or do not."""
    from mmdet.structures.bbox import HorizontalBoxes

    angle = 0.34 if kept else 0.6  # by 0.44 or 0.78 of a pixel there
    masks = np.zeros((1, 256, 256), np.uint8)
    masks[0, 0, 198:206] = 1
    results = {
        "img": np.zeros((256, 256, 3), np.uint8),
        "img_shape": (256, 256),
        "gt_bboxes": HorizontalBoxes(torch.tensor([[198.0, 0.0, 206.0, 0.36]])),
        "gt_masks": BitmapMasks(masks, 256, 256),
    }
    rotate = {"type": "Rotate", "prob": 1.0, "min_mag": angle, "max_mag": angle, "reversal_prob": 0.0}
    results = Compose([rotate])(results)
    assert results["gt_bboxes"].areas.tolist() == [0]
    assert (results["gt_masks"].areas > 0).tolist() == [kept]
    results = BoxesFromMasks().transform(results)
    assert results["gt_bboxes"].tensor.tolist() == ([[198, 0, 205, 1]] if kept else [])
    assert len(results["gt_masks"]) == kept


def test_rotation_moves_masks_with_the_image_however_many():
    """MMDetection's Rotate, as fine-tuning uses it: each of nine masks turns with its own square of the image."""
    from mmdet.structures.bbox import HorizontalBoxes

    corners = [(y, x) for y in (12, 44, 76) for x in (12, 44, 76)]
    masks = np.zeros((9, 100, 100), np.uint8)
    image = np.zeros((100, 100, 3), np.uint8)
    for level, (mask, (y, x)) in enumerate(zip(masks, corners, strict=True), start=1):
        mask[y : y + 12, x : x + 12] = 1
        image[y : y + 12, x : x + 12] = 25 * level
    results = {
        "img": image,
        "img_shape": (100, 100),
        "gt_bboxes": HorizontalBoxes(torch.tensor([[x, y, x + 12, y + 12] for y, x in corners]).float()),
        "gt_masks": BitmapMasks(masks, 100, 100),
    }
    rotate = {"type": "Rotate", "prob": 1.0, "min_mag": 9.0, "max_mag": 9.0, "img_border_value": (0, 0, 0)}
    Compose([rotate])(results)
    for level, (mask, box) in enumerate(
        zip(results["gt_masks"].masks, results["gt_bboxes"].numpy(), strict=True), start=1
    ):
        of_level = np.abs(results["img"][..., 0].astype(int) - 25 * level) < 3
        assert mask.sum() > 100
        assert (of_level & (mask == 1)).sum() > 0.75 * mask.sum()
        ys, xs = np.nonzero(mask)
        assert box[0] - 1 <= xs.min()
        assert xs.max() <= box[2] + 1
        assert box[1] - 1 <= ys.min()
        assert ys.max() <= box[3] + 1
