"""Seed grids, and seed features inside given masks, against loops over cells."""

import math

import numpy as np
import pytest
import torch
from pycocotools import mask as coco_mask

from stage1_proposals.generators.seeds import cell_coverage, pool_proposals, pool_seeds, seed_grids


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_seed_grids_are_the_maps_size_times_each_scale() -> None:
    assert seed_grids(16, 20, (1.0, 0.5, 0.25)) == [(16, 20), (8, 10), (4, 5)]


def test_seed_grids_are_at_least_one_cell_and_none_comes_twice() -> None:
    assert seed_grids(1, 2, (1.0, 0.5, 0.25)) == [(1, 2), (1, 1)]


def test_seeds_are_means_over_their_cells() -> None:
    features, rows, columns = random(3, 5, 7), 2, 3
    seeds = pool_seeds(features[None], [(rows, columns)])[0][0]
    for row in range(rows):
        for column in range(columns):
            top, bottom = math.floor(row * 5 / rows), math.ceil((row + 1) * 5 / rows)
            left, right = math.floor(column * 7 / columns), math.ceil((column + 1) * 7 / columns)
            expected = features[:, top:bottom, left:right].mean((1, 2))
            torch.testing.assert_close(seeds[row * columns + column], expected)


def test_seeds_of_the_full_grid_are_the_features_themselves() -> None:
    features = random(4, 3, 5)
    seeds, centres = pool_seeds(features[None], [(3, 5)])
    for index, (y, x) in enumerate(centres):
        assert torch.equal(seeds[0, index], features[:, int(y * 3), int(x * 5)])


def test_seeds_of_all_grids_stand_together_with_their_centres() -> None:
    seeds, centres = pool_seeds(random(2, 4, 4, 4), [(1, 1), (1, 2)])
    assert seeds.shape == (2, 3, 4)
    assert centres.tolist() == [[0.5, 0.5], [0.5, 0.25], [0.5, 0.75]]


def encode(mask: np.ndarray) -> bytes:
    return coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))["counts"]


def test_coverage_is_the_share_of_each_cell_inside() -> None:
    mask = np.random.default_rng(0).random((12, 20)) > 0.4
    (coverage,) = cell_coverage([encode(mask)], (12, 20), (3, 4))
    for row in range(3):
        for column in range(4):
            expected = mask[4 * row : 4 * row + 4, 5 * column : 5 * column + 5].mean()
            assert coverage[row, column] == pytest.approx(expected)


def test_bilinear_seeds_are_the_features_at_their_centres() -> None:
    features = torch.randn(6, 3, 8, generator=torch.Generator().manual_seed(0))
    (seeds,), _ = pool_seeds(features[None], [(3, 2)], "bilinear")
    # The centre of a quarter of eight columns lies between two of them.
    expected = torch.stack(
        [(features[:, :, 1] + features[:, :, 2]) / 2, (features[:, :, 5] + features[:, :, 6]) / 2], 2
    )
    assert torch.allclose(seeds, expected.flatten(1).T, atol=1e-6)


def test_features_and_seeds_are_weighted_means_over_cells() -> None:
    features = torch.randn(6, 3, 4, generator=torch.Generator().manual_seed(0))
    masks = np.random.default_rng(0).random((2, 12, 20)) > 0.4
    rle, scores = [encode(mask) for mask in masks], np.array([0.5, 0.25], np.float32)
    proposals = pool_proposals(features, rle, scores, (12, 20))
    assert proposals.rle == rle
    assert np.array_equal(proposals.scores, scores)
    for row, mask in enumerate(masks):
        inside = [mask[4 * y : 4 * y + 4, 5 * x : 5 * x + 5].mean() for y in range(3) for x in range(4)]
        mean = sum(w * features[:, y, x] for w, (y, x) in zip(inside, np.ndindex(3, 4), strict=True))
        assert proposals.features[row] == pytest.approx((mean / mean.norm()).numpy(), abs=1e-3)
        centres = [((y + 0.5) / 3, (x + 0.5) / 4) for y in range(3) for x in range(4)]
        assert proposals.seeds[row] == pytest.approx(np.average(centres, axis=0, weights=inside), abs=1e-6)


def test_no_masks_give_no_proposals() -> None:
    proposals = pool_proposals(torch.ones(6, 3, 4), [], np.zeros(0, np.float32), (12, 20))
    assert (len(proposals), proposals.seeds.shape, proposals.features.shape) == (0, (0, 2), (0, 6))
