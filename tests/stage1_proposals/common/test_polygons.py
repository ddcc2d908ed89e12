"""Polygons of masks: what three programs' ways of filling them make of them."""

import itertools
from collections.abc import Callable, Sequence

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from pycocotools import mask as coco_mask
from scipy.ndimage import gaussian_filter

from stage1_proposals.common.masks import Size, encode_masks
from stage1_proposals.common.polygons import Ring, join, mask_polygons

Mask = NDArray[np.bool_]


def fill_as_coco(polygon: Ring, size: Size) -> Mask:
    return coco_mask.decode(coco_mask.frPyObjects([polygon.ravel().tolist()], *size))[..., 0].astype(bool)


def fill_as_labelme(polygon: Ring, size: Size) -> Mask:
    """With the line, as labelme has Pillow draw it."""
    image = Image.new("1", size[::-1])
    ImageDraw.Draw(image).polygon([tuple(point) for point in polygon.tolist()], outline=1, fill=1)
    return np.asarray(image)


def fill_as_ultralytics(polygon: Ring, size: Size) -> Mask:
    """With the line and without the fractions of coordinates, by OpenCV."""
    mask = np.zeros(size, np.uint8)
    cv2.fillPoly(mask, [polygon.astype(np.int32)], 1)
    return mask.astype(bool)


FILLS = [fill_as_coco, fill_as_labelme, fill_as_ultralytics]


def polygons_of(mask: Mask) -> list[Ring]:
    return mask_polygons(encode_masks(mask[None])[0])


def filled(polygons: Sequence[Ring], size: Size, fill: Callable[[Ring, Size], Mask]) -> Mask:
    return np.any([fill(polygon, size) for polygon in polygons], axis=0)


def iou(a: Mask, b: Mask) -> float:
    return float((a & b).sum() / (a | b).sum())


def blob(seed: int, side: int, smooth: float) -> Mask:
    """A random mask of several parts, some with holes, which reaches the image's edges."""
    noise = gaussian_filter(np.random.default_rng(seed).normal(size=(side, side + 7)), smooth)
    return noise > np.quantile(noise, 0.6)


@pytest.mark.parametrize("fill", FILLS)
@pytest.mark.parametrize(("side", "smooth"), [(6, 1), (16, 2), (40, 4), (200, 8), (600, 25)])
def test_the_polygons_of_a_mask_fill_the_mask(side: int, smooth: float, fill: Callable[[Ring, Size], Mask]) -> None:
    for seed in range(20):
        mask = blob(seed, side, smooth)
        assert iou(filled(polygons_of(mask), mask.shape, fill), mask) >= 0.98


@pytest.mark.parametrize("fill", FILLS)
def test_small_masks_are_exact(fill: Callable[[Ring, Size], Mask]) -> None:
    for bits in itertools.product((False, True), repeat=9):
        mask = np.zeros((5, 6), bool)
        mask[1:4, 2:5] = np.reshape(bits, (3, 3))
        if mask.any():
            assert np.array_equal(filled(polygons_of(mask), mask.shape, fill), mask)


def test_noise_is_exact_by_cocos_rule() -> None:
    mask = np.random.default_rng(0).random((40, 50)) < 0.5
    assert np.array_equal(filled(polygons_of(mask), mask.shape, fill_as_coco), mask)


def test_parts_are_apart_the_largest_first_and_holes_are_joined() -> None:
    mask = np.zeros((40, 60), bool)
    mask[2:6, 2:6] = mask[10:30, 10:40] = True
    mask[14:20, 15:25] = mask[22:26, 30:36] = False
    ring, square = polygons_of(mask)
    assert square.tolist() == [[2.25, 2.25], [2.25, 5.75], [5.75, 5.75], [5.75, 2.25]]
    assert not fill_as_coco(ring, mask.shape)[14:20, 15:25].any()
    assert np.array_equal(fill_as_coco(join([ring, square]), mask.shape), mask)


def test_polygons_have_few_points() -> None:
    rows, columns = np.mgrid[:500, :500]
    (circle,) = polygons_of((rows - 250) ** 2 + (columns - 250) ** 2 < 200**2)
    assert len(circle) < 50


def test_a_mask_without_pixels_has_no_polygon() -> None:
    assert polygons_of(np.zeros((4, 5), bool)) == []
