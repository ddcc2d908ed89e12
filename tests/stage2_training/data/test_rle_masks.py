"""Run-length masks are MMDetection's bitmap masks in all but how they are kept."""

import pickle
from typing import Any

import mmcv
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from mmdet.structures.bbox import HorizontalBoxes
from mmdet.structures.mask import BaseInstanceMasks, BitmapMasks
from mmengine.structures import InstanceData
from pycocotools import mask as coco_mask

from stage2_training.data import RunLengthMasks, masks_at


def both(bitmaps: np.ndarray) -> tuple[BitmapMasks, RunLengthMasks]:
    """Bitmaps (L, H, W) in either container."""
    size = bitmaps.shape[1:]
    rles = coco_mask.encode(np.asfortranarray(bitmaps.transpose(1, 2, 0))) if len(bitmaps) else []
    return BitmapMasks(bitmaps, *size), RunLengthMasks([rle["counts"] for rle in rles], size)


def transformed(masks: BaseInstanceMasks, steps: list[tuple[str, Any]]) -> BaseInstanceMasks:
    for name, argument in steps:
        if name == "pad":
            masks = masks.pad((masks.height + argument[0], masks.width + argument[1]))
        elif name == "crop":
            sides = np.array([masks.width, masks.height] * 2)
            corners = np.sort(np.reshape(argument, (2, 2)) * sides.reshape(2, 2) // 10, axis=0)
            corners[1] = np.maximum(corners[1], corners[0] + 1).clip(max=sides[:2])
            masks = masks.crop(np.minimum(corners, corners[1] - [[1, 1], [0, 0]]).flatten())
        elif name != "rescale" or 0 not in mmcv.rescale_size((masks.width, masks.height), argument):
            masks = getattr(masks, name)(argument)
    return masks


SIDE = st.integers(1, 40)
STEP = st.one_of(
    st.tuples(st.just("flip"), st.sampled_from(["horizontal", "vertical", "diagonal"])),
    st.tuples(st.just("resize"), st.tuples(SIDE, SIDE)),
    st.tuples(st.just("rescale"), st.one_of(st.tuples(SIDE, SIDE), st.floats(0.6, 3))),
    st.tuples(st.just("crop"), st.tuples(*[st.integers(0, 10)] * 4)),  # corners, in tenths of the sides
    st.tuples(st.just("pad"), st.tuples(st.integers(0, 9), st.integers(0, 9))),
)


@st.composite
def bitmaps(draw: st.DrawFn) -> np.ndarray:
    """No to four masks of 2 to 40 pixels a side: blocks, noise, empty, full."""
    rng = np.random.default_rng(draw(st.integers(0, 10_000)))
    height, width = draw(st.integers(2, 40)), draw(st.integers(2, 40))
    found = np.zeros((draw(st.integers(0, 4)), height, width), np.uint8)
    for mask in found:
        share = draw(st.sampled_from([0.0, 0.1, 0.5, 1.0, None]))
        if share is None:
            (top, bottom), (left, right) = (np.sort(rng.integers(0, side + 1, 2)) for side in mask.shape)
            mask[top:bottom, left:right] = 1
        else:
            mask[:] = rng.random(mask.shape) < share
    return found


@settings(deadline=None, max_examples=200)
@given(masks=bitmaps(), steps=st.lists(STEP, max_size=4))
def test_transforms_give_the_bitmaps_areas_and_boxes_that_mmdetections_masks_have(
    masks: np.ndarray, steps: list[tuple[str, Any]]
) -> None:
    expected, found = (transformed(each, steps) for each in both(masks))
    assert isinstance(found, RunLengthMasks)
    assert "masks" not in vars(found)
    boxes = found.get_bboxes()
    assert "masks" not in vars(found)
    assert torch.equal(boxes.tensor, expected.get_bboxes("hbox").tensor)
    assert (len(found), found.height, found.width) == (len(expected), expected.height, expected.width)
    assert found.areas.tolist() == expected.areas.tolist()
    assert found.masks.dtype == np.uint8
    assert np.array_equal(found.masks, expected.masks)
    assert torch.equal(found.to_tensor(torch.uint8, "cpu"), expected.to_tensor(torch.uint8, "cpu"))


@settings(deadline=None, max_examples=200)
@given(
    masks=bitmaps(),
    steps=st.lists(STEP, max_size=4),
    size=st.tuples(st.integers(1, 12), st.integers(1, 12)),
    times=st.tuples(st.sampled_from([2, 4, 6]), st.sampled_from([2, 4, 8])),
)
def test_at_an_even_fraction_of_the_size_they_are_what_torch_makes_of_the_bitmaps(
    masks: np.ndarray, steps: list[tuple[str, Any]], size: tuple[int, int], times: tuple[int, int]
) -> None:
    steps = [*steps, ("resize", (size[0] * times[0], size[1] * times[1]))]
    expected, found = (transformed(each, steps) for each in both(masks))
    values = masks_at(found, size)
    assert "masks" not in vars(found)
    assert values.dtype == torch.float32
    assert values.shape == (len(masks), *size)
    if len(masks):
        pixels = torch.from_numpy(expected.masks)[None].float()
        assert torch.equal(values, F.interpolate(pixels, size=size, mode="bilinear", align_corners=False)[0])
    assert torch.equal(values, masks_at(expected, size))


def test_each_value_is_the_mean_of_the_four_middle_pixels_of_its_block() -> None:
    masks = np.random.default_rng(0).integers(0, 2, (3, 24, 40), dtype=np.uint8)
    values = masks_at(both(masks)[1].flip("horizontal").pad((32, 64)), (8, 16))
    pixels = np.zeros((3, 32, 64))
    pixels[:, :24, :40] = masks[:, :, ::-1]
    for number in range(3):
        for y in range(8):
            for x in range(16):
                block = pixels[number, 4 * y : 4 * y + 4, 4 * x : 4 * x + 4]
                assert values[number, y, x] == block[1:3, 1:3].mean()


@settings(deadline=None, max_examples=50)
@given(masks=bitmaps(), size=st.tuples(SIDE, SIDE))
def test_at_any_other_size_they_are_resized_as_bitmaps(masks: np.ndarray, size: tuple[int, int]) -> None:
    expected, found = both(masks)
    assert torch.equal(masks_at(found, size), masks_at(expected, size))


MASKS = np.random.default_rng(1).integers(0, 2, (4, 20, 30), dtype=np.uint8)


@pytest.mark.parametrize(
    "index", [2, -1, slice(1, 3), [3, 0], np.array([1, 1]), np.array([True, False, True, True]), np.zeros(4, bool)]
)
def test_an_index_gives_the_masks_it_gives_of_bitmaps(index: Any) -> None:
    expected, found = (each.flip("horizontal")[index] for each in both(MASKS))
    assert isinstance(found, RunLengthMasks)
    assert np.array_equal(found.masks, expected.masks)
    assert found.areas.tolist() == expected.areas.tolist()


@pytest.mark.parametrize(
    "call",
    [
        lambda masks: masks.rotate((20, 32), 10.0),
        lambda masks: masks.translate((20, 32), 4),
        lambda masks: masks.expand(40, 50, 3, 5),
        lambda masks: masks.pad((25, 35), pad_val=1),
        lambda masks: masks.resize((40, 45), interpolation="bilinear"),
        lambda masks: masks.crop_and_resize(
            np.array([[2.0, 3, 20, 15], [0, 0, 30, 20]], np.float32), (7, 7), np.array([1, 3])
        ),
        lambda masks: masks.cat([masks, masks[1:3]]),
    ],
    ids=["rotate", "translate", "expand", "pad with ones", "bilinear", "crop and resize", "cat"],
)
def test_what_needs_pixels_gets_them(call: Any) -> None:
    expected, found = (call(each.flip("vertical").pad((20, 32))) for each in both(MASKS))
    assert type(found) is BitmapMasks
    assert np.array_equal(found.masks, expected.masks)
    assert (found.height, found.width) == (expected.height, expected.width)


def test_boxes_are_those_of_the_bitmaps() -> None:
    masks = np.zeros((2, 20, 30), np.uint8)
    masks[0, 4:9, 6:17] = 1
    expected, found = (each.flip("horizontal") for each in both(masks))
    boxes = HorizontalBoxes.from_instance_masks(found).tensor
    assert torch.equal(boxes, HorizontalBoxes.from_instance_masks(expected).tensor)
    assert boxes[0].tolist() == [13, 4, 24, 9]


def test_they_are_instance_data() -> None:
    instances = InstanceData(masks=both(MASKS)[1], labels=torch.arange(4))
    chosen = instances[torch.tensor([True, False, False, True])]
    assert np.array_equal(chosen.masks.masks, MASKS[[0, 3]])
    assert np.array_equal(instances[1:2].masks.masks, MASKS[1:2])


def test_a_copy_in_another_process_has_run_lengths_and_no_bitmaps() -> None:
    masks = both(MASKS)[1].flip("horizontal")
    assert masks.masks.any()
    copy = pickle.loads(pickle.dumps(masks))
    assert "masks" not in vars(copy)
    assert np.array_equal(copy.masks, MASKS[:, :, ::-1])
    assert len(pickle.dumps(masks)) == len(pickle.dumps(copy))
