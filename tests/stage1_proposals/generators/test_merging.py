"""The merging generator finds what the plain loop finds, and single objects where they are."""

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from stage1_proposals.generators.base import Batch, ImageInfo
from stage1_proposals.generators.merging import INSIDE, MergingGenerator, soft_masks
from tests.feature_maps import SIZE, masks_of, propose, smooth_features
from tests.reference.plain_merging import plain_regions


def block_features() -> Tensor:
    """Two objects: (3, 8, 8), features (0, 1, 0) and (0, 0, 1) in two blocks, and (1, 0, 0) around them."""
    features = torch.zeros(3, 8, 8)
    features[0] = 1
    features[:, 1:4, 1:5] = torch.tensor([0.0, 1.0, 0.0])[:, None, None]
    features[:, 5:7, 4:7] = torch.tensor([0.0, 0.0, 1.0])[:, None, None]
    return features


def test_objects_are_found_where_they_are_and_first() -> None:
    proposals = propose(MergingGenerator(), block_features(), (8, 8))
    large, small = masks_of(proposals, (8, 8))[:2]
    assert (large == (block_features()[1] > 0).numpy()).all()
    assert (small == (block_features()[2] > 0).numpy()).all()
    # They have nothing in common with the cells beside them, nor with the border's.
    assert proposals.scores[:2] == pytest.approx([(12 / 64) ** (1 / 3), (6 / 64) ** (1 / 3)])
    assert proposals.seeds[0] == pytest.approx([2.5 / 8, 3 / 8])
    assert proposals.features[:2].tolist() == [[0, 1, 0], [0, 0, 1]]


@settings(deadline=None, max_examples=20)
@given(
    seed=st.integers(0, 10_000),
    choice=st.fixed_dictionaries(
        {
            "min_cells": st.integers(1, 4),
            "max_area": st.sampled_from([0.2, 0.5, 1.0]),
            "area_exponent": st.sampled_from([0.1, 1 / 3]),
            "nms_iou": st.sampled_from([0.2, 0.5, 0.9]),
            "max_proposals": st.integers(1, 30),
        }
    ),
)
def test_regions_are_the_plain_loops(seed: int, choice: dict[str, Any]) -> None:
    features = torch.randn(16, 5, 6, generator=torch.Generator().manual_seed(seed))
    proposals = propose(MergingGenerator(**choice), features, (5, 6))
    cells = F.normalize(features.flatten(1), dim=0).T.double().numpy()
    expected = plain_regions(cells, 6, **choice)
    found = [frozenset(mask.ravel().nonzero()[0]) for mask in masks_of(proposals, (5, 6))]
    assert found == [region for _, region in expected]
    assert proposals.scores == pytest.approx([score for score, _ in expected], abs=1e-4)
    for centre, feature, (_, region) in zip(proposals.seeds, proposals.features, expected, strict=True):
        rows, columns = np.divmod(sorted(region), 6)
        assert centre == pytest.approx([(rows.mean() + 0.5) / 5, (columns.mean() + 0.5) / 6], abs=1e-5)
        mean = cells[sorted(region)].mean(0)
        assert feature == pytest.approx(mean / np.linalg.norm(mean), abs=1e-3)


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 10_000), count=st.integers(1, 20))
def test_proposals_are_few_scored_in_order_and_their_seeds_inside(seed: int, count: int) -> None:
    proposals = propose(MergingGenerator(max_proposals=count), smooth_features(seed))
    assert 0 < len(proposals) <= count
    assert masks_of(proposals).any((1, 2)).all()
    assert proposals.scores.tolist() == sorted(proposals.scores, reverse=True)
    for values in (proposals.scores, proposals.seeds):
        assert ((values >= 0) & (values <= 1)).all()


@pytest.mark.parametrize("value", [0.3, 0.0])
def test_constant_features_hold_no_proposals(value: float) -> None:
    proposals = propose(MergingGenerator(), torch.full((16, 6, 8), value))
    assert len(proposals) == 0
    assert proposals.features.shape == (0, 16)
    assert proposals.seeds.shape == (0, 2)


def test_merging_does_not_see_the_features_scale() -> None:
    features = smooth_features()
    scaled = features * torch.linspace(1, 4, 48).view(1, 6, 8)
    assert propose(MergingGenerator(), features * 8).rle == propose(MergingGenerator(), features).rle
    assert len(set(propose(MergingGenerator(), scaled).rle) & set(propose(MergingGenerator(), features).rle)) > 10


def test_images_of_a_batch_do_not_see_each_other() -> None:
    features = [smooth_features(seed) for seed in range(3)] + [torch.full((16, 6, 8), 0.3)]
    sizes = [SIZE, (60, 80), (7, 300), SIZE]
    images = [ImageInfo(number, f"{number}.jpg", size) for number, size in enumerate(sizes)]
    together = MergingGenerator()(Batch(torch.stack(features), images))
    for feature, size, proposals in zip(features, sizes, together, strict=True):
        alone = propose(MergingGenerator(), feature, size)
        assert list(alone.rle) == list(proposals.rle)
        assert alone.scores.tolist() == proposals.scores.tolist()


def test_sets_of_before_area_counted_otherwise_are_continued() -> None:
    assert "area_exponent" not in MergingGenerator().parameters()
    assert MergingGenerator(area_exponent=0.1).parameters()["area_exponent"] == 0.1


def test_regions_without_a_pixel_are_left_out() -> None:
    proposals = propose(MergingGenerator(), smooth_features(height=24, width=32), (4, 5))
    assert masks_of(proposals, (4, 5)).any((1, 2)).all()


def test_soft_masks_reach_farther_into_cells_that_resemble_the_region() -> None:
    cells = F.normalize(torch.tensor([[0.7, 0.7], [1.0, 0.0], [1.0, 0.0], [0.0, 1.0]]), dim=1)
    regions = torch.tensor([[0.0, 1.0, 1.0, 0.0]])
    left, *inside, right = soft_masks(cells, regions, torch.tensor([[1.0, 0.0]]), (1, 4))[0, 0].tolist()
    assert inside == [1, 1]
    assert right == 0
    assert 0.4 < left < INSIDE
