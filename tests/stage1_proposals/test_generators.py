"""The saliency generator's recipe, options and filters."""

import json
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from stage1_proposals.errors import UserError
from stage1_proposals.generators import SaliencyGenerator, build_generator
from stage1_proposals.mask_nms import mask_iou

SIZE = (96, 128)


def smooth_features(seed: int = 0, height: int = 6, width: int = 8) -> Tensor:
    """Features that vary slowly over the image, as a backbone's do: (16, height, width)."""
    coarse = torch.randn(1, 16, 3, 3, generator=torch.Generator().manual_seed(seed))
    return F.interpolate(coarse, (height, width), mode="bilinear")[0]


def block_features() -> Tensor:
    """One object: (2, 8, 8), the feature (0, 1) in rows 2-4, columns 1-5, and (1, 0) around it."""
    features = torch.zeros(2, 8, 8)
    features[0] = 1
    features[:, 2:5, 1:6] = torch.tensor([0.0, 1.0])[:, None, None]
    return features


def test_an_object_in_one_feature_is_found_where_it_is() -> None:
    proposals = SaliencyGenerator(seed_grid=(8, 8))(block_features(), (8, 8))
    found = {tuple(mask.flatten().tolist()) for mask in proposals.masks}
    inside = torch.zeros(8, 8, dtype=torch.bool)
    inside[2:5, 1:6] = True
    assert found == {tuple(inside.flatten().tolist()), tuple((~inside).flatten().tolist())}
    assert proposals.scores.tolist() == [1, 1]


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 10_000), count=st.integers(1, 20))
def test_proposals_are_few_scored_in_order_and_their_seeds_inside(seed: int, count: int) -> None:
    proposals = SaliencyGenerator(max_proposals=count)(smooth_features(seed), SIZE)
    assert len(proposals) <= count
    assert proposals.masks.shape == (len(proposals), *SIZE)
    assert proposals.masks.flatten(1).any(1).all()
    assert torch.equal(proposals.scores, proposals.scores.sort(descending=True).values)
    for values in (proposals.scores, proposals.seeds):
        assert ((values >= 0) & (values <= 1)).all()


def test_constant_features_hold_no_proposals() -> None:
    proposals = SaliencyGenerator()(torch.full((16, 6, 8), 0.3), SIZE)
    assert len(proposals) == 0
    assert proposals.masks.shape == (0, *SIZE)
    assert proposals.features.shape == (0, 16)


def test_cosine_saliency_does_not_see_the_features_scale() -> None:
    features = smooth_features()
    for scaled in (features * 8, features * torch.linspace(1, 4, 48).view(1, 6, 8)):
        generator = SaliencyGenerator(seed_scales=(1.0,))
        assert torch.equal(generator(features, SIZE).masks, generator(scaled, SIZE).masks)


def test_dot_saliency_does() -> None:
    features, scale = smooth_features(), torch.linspace(1, 4, 48).view(1, 6, 8)
    generator = SaliencyGenerator(similarity="dot", seed_scales=(1.0,))
    assert not torch.equal(generator(features, SIZE).masks, generator(features * scale, SIZE).masks)


def test_features_are_the_seeds_as_the_saliency_used_them() -> None:
    features, generator = smooth_features(), SaliencyGenerator(seed_grid=(6, 8))
    proposals = generator(features, SIZE)
    torch.testing.assert_close(proposals.features.norm(dim=1), torch.ones(len(proposals)))
    dot = SaliencyGenerator(seed_grid=(6, 8), similarity="dot")(features, SIZE)
    for (y, x), feature in zip(dot.seeds, dot.features, strict=True):
        assert torch.equal(feature, features[:, int(y * 6), int(x * 8)])


def test_the_recipe_step_by_step() -> None:
    """Eq. 3-4 with loops, for one seed grid and no suppression, threshold 0.6."""
    features = smooth_features(3)
    generator = SaliencyGenerator(seed_grid=(6, 8), threshold=0.6, nms_iou=1.0, max_proposals=48)
    proposals = generator(features, (6, 8))
    expected = []
    for row in range(6):
        for column in range(8):
            seed = features[:, row, column]
            soft = F.cosine_similarity(seed[:, None, None], features, dim=0)
            soft = (soft - soft.min()) / (soft.max() - soft.min())
            mask = soft > 0.6
            if mask.sum() > 1:
                expected.append((float(soft[mask].mean()), mask))
    expected.sort(key=lambda item: -item[0])
    assert proposals.scores.tolist() == pytest.approx([score for score, _ in expected], abs=1e-5)
    assert {tuple(m.flatten().tolist()) for m in proposals.masks} == {tuple(m.flatten().tolist()) for _, m in expected}


def test_greedy_nms_leaves_no_two_alike() -> None:
    # At the feature map's own size the masks are those that NMS compared.
    proposals = SaliencyGenerator(nms_iou=0.3)(smooth_features(), (6, 8))
    assert len(proposals) > 1
    assert (mask_iou(proposals.masks) - torch.eye(len(proposals))).max() <= 0.3


def test_matrix_nms_keeps_overlapping_masks_at_lower_scores() -> None:
    features = smooth_features()
    greedy, matrix = (SaliencyGenerator(nms=nms)(features, SIZE) for nms in ("greedy", "matrix"))
    assert len(matrix) == 20 > len(greedy)
    assert torch.equal(matrix.scores, matrix.scores.sort(descending=True).values)
    assert matrix.scores[0] == greedy.scores[0]
    strong = SaliencyGenerator(nms="matrix", nms_sigma=8.0)(features, SIZE)
    assert strong.scores.sum() < matrix.scores.sum()


def test_seed_grid_replaces_the_scales() -> None:
    proposals = SaliencyGenerator(seed_grid=(1, 2), seed_scales=(1.0,))(smooth_features(), SIZE)
    assert {tuple(seed) for seed in proposals.seeds.tolist()} <= {(0.5, 0.25), (0.5, 0.75)}


def everything(**settings: Any) -> set[tuple[float, ...]]:
    """Seeds of the proposals (each its own), for comparing what a filter leaves."""
    generator = SaliencyGenerator(max_proposals=50, nms_iou=0.9, **settings)
    return {tuple(seed) for seed in generator(smooth_features(1), SIZE).seeds.tolist()}


def test_min_score_drops_exactly_the_lower_ones() -> None:
    proposals = SaliencyGenerator(max_proposals=50, nms_iou=0.9)(smooth_features(1), SIZE)
    middle = float(proposals.scores.median())
    left = {tuple(seed) for seed in proposals.seeds[proposals.scores >= middle].tolist()}
    assert everything(min_score=middle) == left != everything()


def test_max_box_width_drops_exactly_the_wider_ones() -> None:
    proposals = SaliencyGenerator(max_proposals=50, nms_iou=0.9)(smooth_features(1), SIZE)
    left = set()
    for seed, mask in zip(proposals.seeds.tolist(), proposals.masks, strict=True):
        columns = mask.any(0).nonzero()[:, 0]
        if (columns.max() - columns.min() + 1) / SIZE[1] <= 0.95:
            left.add(tuple(seed))
    assert everything(max_box_width=0.95) == left != everything()


def test_top_margin_drops_exactly_the_masks_centred_above_it() -> None:
    proposals = SaliencyGenerator(max_proposals=50, nms_iou=0.9)(smooth_features(1), SIZE)
    left = set()
    for seed, mask in zip(proposals.seeds.tolist(), proposals.masks, strict=True):
        rows = mask.nonzero()[:, 0].float() + 0.5
        if rows.mean() / SIZE[0] >= 0.4:
            left.add(tuple(seed))
    assert everything(top_margin=0.4) == left != everything()


def test_min_cells_drops_small_masks() -> None:
    features = torch.zeros(2, 8, 8)
    features[0] = 1
    features[:, 0, 0] = torch.tensor([0.0, 1.0])
    assert len(SaliencyGenerator(seed_grid=(8, 8))(features, (8, 8))) == 1  # the one cell is null, its surroundings not
    assert len(SaliencyGenerator(seed_grid=(8, 8), min_cells=0)(features, (8, 8))) == 2


def test_parameters_make_an_equal_generator_through_json() -> None:
    generator = build_generator({"name": "saliency", "nms": "matrix", "seed_grid": [3, 4], "seed_scales": [1, 0.5]})
    assert build_generator(json.loads(json.dumps(generator.parameters()))) == generator


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"name": "magic"}, "no generator 'magic'; there are saliency"),
        ({"treshold": 0.5}, "no setting treshold; it has .*threshold"),
        ({"similarity": "l2"}, "similarity 'l2': use cosine or dot"),
        ({"nms": "soft"}, "nms 'soft': use greedy or matrix"),
        ({"threshold": 1.0}, "threshold 1.0: must lie between"),
        ({"threshold": "high"}, "threshold 'high': must be a number"),
        ({"nms_iou": 1.5}, "nms_iou 1.5: must be a number in"),
        ({"nms_sigma": 0}, "nms_sigma"),
        ({"min_score": -0.1}, "min_score"),
        ({"max_box_width": 20}, "max_box_width"),
        ({"top_margin": 2}, "top_margin"),
        ({"max_proposals": 0}, "max_proposals 0: must be a whole number"),
        ({"max_proposals": 2.5}, "max_proposals 2.5: must be a whole number"),
        ({"min_cells": "1"}, "min_cells '1': must be a whole number"),
        ({"seed_scales": []}, "seed scale"),
        ({"seed_scales": [1.0, 0.0]}, "seed scale"),
        ({"seed_scales": 0.5}, "wrong type"),
        ({"seed_grid": [7]}, "seed_grid"),
        ({"seed_grid": [0, 7]}, "seed_grid"),
        ({"seed_grid": 7}, "wrong type"),
    ],
)
def test_a_setting_that_cannot_be_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        build_generator(settings)
