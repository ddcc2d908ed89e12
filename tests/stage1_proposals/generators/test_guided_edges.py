"""Edges of masks move to those of the image."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from stage1_proposals.generators.base import Batch, ImageInfo
from stage1_proposals.generators.guided_edges import (
    FINER,
    MARGIN,
    RADIUS,
    SMOOTHNESS,
    follow_image,
    grey_guide,
    guided_filter,
    windows_around,
)
from stage1_proposals.generators.merging import MergingGenerator
from tests.feature_maps import masks_of

ROWS, COLUMNS, CELL = 8, 10, 16
SIZE = (ROWS * CELL, COLUMNS * CELL)


def plain_filter(soft: np.ndarray, guide: np.ndarray) -> np.ndarray:
    """A ridge regression of `soft` on the guide in every window, its slope and intercept averaged over windows."""
    height, width = soft.shape
    inside = [
        [(slice(max(y - RADIUS, 0), y + RADIUS + 1), slice(max(x - RADIUS, 0), x + RADIUS + 1)) for x in range(width)]
        for y in range(height)
    ]
    slope, intercept = np.zeros_like(soft), np.zeros_like(soft)
    for y in range(height):
        for x in range(width):
            p, g = soft[inside[y][x]], guide[inside[y][x]]
            slope[y, x] = ((p * g).mean() - p.mean() * g.mean()) / (g.var() + SMOOTHNESS)
            intercept[y, x] = p.mean() - slope[y, x] * g.mean()
    return np.array(
        [
            [slope[inside[y][x]].mean() * guide[y, x] + intercept[inside[y][x]].mean() for x in range(width)]
            for y in range(height)
        ]
    )


def test_the_filter_is_the_plain_regression() -> None:
    soft, guide = torch.rand(2, 9, 7, generator=torch.Generator().manual_seed(0))
    expected = plain_filter(soft.double().numpy(), guide.double().numpy())
    assert guided_filter(soft, guide).numpy() == pytest.approx(expected, abs=1e-3)


def test_without_edges_in_the_image_a_mask_is_only_smoothed() -> None:
    soft = torch.zeros(1, ROWS, COLUMNS)
    soft[0, 3:5, 4:7] = 1
    refined = follow_image(soft, windows_around(soft.numpy() > 0), torch.full((FINER * ROWS, FINER * COLUMNS), 0.3))
    smoothed = F.interpolate(soft[None], scale_factor=FINER, mode="bilinear")[0]
    for _ in range(2):  # the fit in each window, and the mean over windows
        smoothed = F.avg_pool2d(smoothed, 2 * RADIUS + 1, 1, RADIUS)
    torch.testing.assert_close(refined, smoothed, rtol=1e-3, atol=1e-4)


def test_windows_hold_a_region_and_a_margin_inside_the_map() -> None:
    regions = np.zeros((2, 9, 12), bool)
    regions[0, 4, 5:7] = True
    regions[1, 0, 11] = regions[1, 8, 3] = True
    assert windows_around(regions) == [(4 - MARGIN, 5 - MARGIN, 5 + MARGIN, 7 + MARGIN), (0, 3 - MARGIN, 9, 12)]


def disc() -> tuple[Tensor, Tensor]:
    """Pixels (3, H, W) of a bright disc whose edge is within cells, and features that say how much of it cells hold."""
    y, x = torch.meshgrid(torch.arange(SIZE[0]), torch.arange(SIZE[1]), indexing="ij")
    inside = ((y - 60) ** 2 + (x - 75) ** 2 < 35**2).float()
    held = F.avg_pool2d(inside[None], CELL)[0].round()  # half of a cell counts as all of it
    noise = torch.rand(SIZE, generator=torch.Generator().manual_seed(0))
    return (inside * 150 + 50 * noise).expand(3, -1, -1), torch.stack([held, 1 - held])


def overlap(mask: np.ndarray, other: np.ndarray) -> float:
    return float((mask & other).sum() / (mask | other).sum())


def test_a_mask_of_whole_cells_gets_the_edge_of_the_object() -> None:
    pixels, features = disc()
    infos = [ImageInfo(1, "a.jpg", SIZE)]
    truth = (pixels[0] > 100).numpy()
    batch = Batch(features[None], infos, pixels=pixels[None])
    (image,), (cells,) = MergingGenerator()(batch), MergingGenerator(edges="cells")(batch)
    assert overlap(masks_of(image, SIZE)[0], truth) > overlap(masks_of(cells, SIZE)[0], truth) + 0.02
    assert MergingGenerator()(Batch(features[None], infos))[0].rle == cells.rle


def test_images_of_a_batch_do_not_see_each_other() -> None:
    pixels, features = disc()
    flipped = pixels.flip(2)
    infos = [ImageInfo(number, "a.jpg", SIZE) for number in range(2)]
    together = MergingGenerator()(
        Batch(torch.stack([features, features]), infos, pixels=torch.stack([pixels, flipped]))
    )
    for one, info, proposals in zip((pixels, flipped), infos, together, strict=True):
        (alone,) = MergingGenerator()(Batch(features[None], [info], pixels=one[None]))
        assert alone.rle == proposals.rle
    assert together[0].rle != together[1].rle


def test_the_guide_is_grey_and_in_proportion() -> None:
    guide = grey_guide(torch.tensor([255, 0, 0]).byte()[:, None, None].expand(3, 64, 96), (2, 3))
    assert guide.shape == (2 * FINER, 3 * FINER)
    assert guide.numpy() == pytest.approx(1 / 3)
