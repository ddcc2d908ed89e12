"""Seed features inside given masks, against loops over cells."""

import numpy as np
import pytest
import torch
from pycocotools import mask as coco_mask

from stage1_proposals.generators.seeds import cell_coverage, pool_proposals


def encode(mask: np.ndarray) -> bytes:
    return coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))["counts"]


def test_coverage_is_the_share_of_each_cell_inside() -> None:
    mask = np.random.default_rng(0).random((12, 20)) > 0.4
    (coverage,) = cell_coverage([encode(mask)], (12, 20), (3, 4))
    for row in range(3):
        for column in range(4):
            expected = mask[4 * row : 4 * row + 4, 5 * column : 5 * column + 5].mean()
            assert coverage[row, column] == pytest.approx(expected)


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
