"""Run lengths against masks made pixel by pixel."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from stage1_proposals.generators.mask_rle import encode_changes, mask_changes, occupied

THRESHOLD = 0.5


def bilinear(soft: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """Pixel by pixel, pixel centres aligned, edges repeated."""
    rows, columns = soft.shape
    out = torch.empty(height, width)
    for i in range(height):
        for j in range(width):
            y = min(max((i + 0.5) * rows / height - 0.5, 0), rows - 1)
            x = min(max((j + 0.5) * columns / width - 0.5, 0), columns - 1)
            y0, x0 = int(y), int(x)
            y1, x1 = min(y0 + 1, rows - 1), min(x0 + 1, columns - 1)
            top = soft[y0, x0] * (1 - (x - x0)) + soft[y0, x1] * (x - x0)
            bottom = soft[y1, x0] * (1 - (x - x0)) + soft[y1, x1] * (x - x0)
            out[i, j] = top * (1 - (y - y0)) + bottom * (y - y0)
    return out


def changes_of(maps: torch.Tensor, size: tuple[int, int]) -> list[NDArray[np.int64]]:
    owners, pixels = mask_changes(maps, size, THRESHOLD)
    return [pixels[owners == index].numpy() for index in range(len(maps))]


def decode(rle: list[bytes], size: tuple[int, int]) -> NDArray[np.uint8]:
    return coco_mask.decode([{"size": list(size), "counts": counts} for counts in rle]).transpose(2, 0, 1)


def random_maps(seed: int, *shape: int) -> torch.Tensor:
    """Values on a coarse scale, so that equal neighbours and values at the threshold itself are common."""
    return torch.randint(0, 9, shape, generator=torch.Generator().manual_seed(seed)) / 8


def test_masks_are_the_bilinear_map_over_the_threshold() -> None:
    maps = torch.rand(2, 3, 4, generator=torch.Generator().manual_seed(0))
    for mask, soft in zip(decode(encode_changes(changes_of(maps, (11, 13)), (11, 13)), (11, 13)), maps, strict=True):
        full = bilinear(soft, 11, 13)
        sure = ((full - THRESHOLD).abs() > 1e-5).numpy()
        assert np.array_equal(mask[sure], full.numpy()[sure] > THRESHOLD)


sides = st.integers(1, 40)
cells = st.integers(1, 6)


@settings(deadline=None, max_examples=200)
@given(seed=st.integers(0, 10_000), height=sides, width=sides, rows=cells, columns=cells, sparse=st.booleans())
def test_any_size_matches_torchs_own_upsampling(
    seed: int, height: int, width: int, rows: int, columns: int, sparse: bool
) -> None:
    """Also images smaller than the feature map, where some cells have no pixel, and maps with few cells inside."""
    maps, size = random_maps(seed, 3, rows, columns), (height, width)
    if sparse:
        maps *= random_maps(seed + 1, 3, rows, columns) > 0.8
    full = F.interpolate(maps[None], size, mode="bilinear", align_corners=False)[0].numpy()
    masks = decode(encode_changes(changes_of(maps, size), size), size)
    sure = np.abs(full - THRESHOLD) > 1e-5
    assert np.array_equal(masks[sure], full[sure] > THRESHOLD)


@settings(deadline=None, max_examples=50)
@given(seed=st.integers(0, 10_000), height=sides, width=sides)
def test_the_bytes_are_those_pycocotools_writes_for_the_mask(seed: int, height: int, width: int) -> None:
    size = (height, width)
    rle = encode_changes(changes_of(random_maps(seed, 3, 4, 5), size), size)
    masks = decode(rle, size)
    assert [mask["counts"] for mask in coco_mask.encode(np.asfortranarray(masks.transpose(1, 2, 0)))] == rle


def test_changes_ascend_within_each_mask_and_masks_ascend() -> None:
    owners, pixels = mask_changes(random_maps(0, 5, 4, 6), (37, 53), THRESHOLD)
    assert owners.diff().min() >= 0
    assert pixels.diff()[owners.diff() == 0].min() > 0
    assert 0 <= int(pixels.min()) <= int(pixels.max()) < 37 * 53


@pytest.mark.parametrize(("value", "expected"), [(0.0, []), (0.5, []), (0.6, [0]), (1.0, [0])])
def test_a_flat_map_is_inside_whole_or_not_at_all(value: float, expected: list[int]) -> None:
    assert changes_of(torch.full((1, 3, 4), value), (20, 30))[0].tolist() == expected


def test_no_maps_have_no_changes() -> None:
    owners, pixels = mask_changes(torch.zeros(0, 3, 4), (11, 13), THRESHOLD)
    assert len(owners) == len(pixels) == 0
    assert encode_changes([], (11, 13)) == []


@settings(deadline=None, max_examples=50)
@given(seed=st.integers(0, 10_000), height=sides, width=sides)
def test_the_rows_and_columns_occupied_are_those_of_the_pixels(seed: int, height: int, width: int) -> None:
    size = (height, width)
    for change in changes_of(random_maps(seed, 3, 4, 5), size):
        mask = decode(encode_changes([change], size), size)[0]
        rows, columns = occupied(change, size)
        assert np.array_equal(rows, mask.any(1))
        assert np.array_equal(columns, mask.any(0))


@settings(deadline=None)
@given(pixels=st.sets(st.integers(0, 23)), height=st.sampled_from([1, 2, 4, 6, 24]))
def test_runs_that_go_on_in_later_columns_occupy_what_they_pass(pixels: set[int], height: int) -> None:
    size = (height, 24 // height)
    change = np.array(sorted(pixels), np.int64)
    mask = decode(encode_changes([change], size), size)[0]
    rows, columns = occupied(change, size)
    assert np.array_equal(rows, mask.any(1))
    assert np.array_equal(columns, mask.any(0))
