"""The saliency generator's recipe, options and filters."""

import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco_mask
from torch import Tensor

from stage1_proposals.generators.base import Batch, ImageInfo
from stage1_proposals.generators.registry import build_generator
from stage1_proposals.generators.saliency import SaliencyGenerator
from tests.feature_maps import SIZE, masks_of, propose, smooth_features


def block_features() -> Tensor:
    """One object: (2, 8, 8), the feature (0, 1) in rows 2-4, columns 1-5, and (1, 0) around it."""
    features = torch.zeros(2, 8, 8)
    features[0] = 1
    features[:, 2:5, 1:6] = torch.tensor([0.0, 1.0])[:, None, None]
    return features


def test_an_object_in_one_feature_is_found_where_it_is() -> None:
    proposals = propose(SaliencyGenerator(seed_grid=(8, 8)), block_features(), (8, 8))
    found = {tuple(mask.ravel()) for mask in masks_of(proposals, (8, 8))}
    inside = np.zeros((8, 8), bool)
    inside[2:5, 1:6] = True
    assert found == {tuple(inside.ravel()), tuple((~inside).ravel())}
    assert proposals.scores.tolist() == [1, 1]


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 10_000), count=st.integers(1, 20))
def test_proposals_are_few_scored_in_order_and_their_seeds_inside(seed: int, count: int) -> None:
    proposals = propose(SaliencyGenerator(max_proposals=count), smooth_features(seed))
    assert len(proposals) <= count
    assert masks_of(proposals).any((1, 2)).all()
    assert proposals.scores.tolist() == sorted(proposals.scores, reverse=True)
    for values in (proposals.scores, proposals.seeds):
        assert ((values >= 0) & (values <= 1)).all()


def test_constant_features_hold_no_proposals() -> None:
    proposals = propose(SaliencyGenerator(), torch.full((16, 6, 8), 0.3))
    assert len(proposals) == 0
    assert proposals.features.shape == (0, 16)


def test_cosine_saliency_does_not_see_the_features_scale() -> None:
    features = smooth_features()
    for scaled in (features * 8, features * torch.linspace(1, 4, 48).view(1, 6, 8)):
        generator = SaliencyGenerator(seed_scales=(1.0,))
        assert propose(generator, features).rle == propose(generator, scaled).rle


def test_dot_saliency_does() -> None:
    features, scale = smooth_features(), torch.linspace(1, 4, 48).view(1, 6, 8)
    generator = SaliencyGenerator(similarity="dot", seed_scales=(1.0,))
    assert propose(generator, features).rle != propose(generator, features * scale).rle


def test_features_are_the_seeds_as_the_saliency_used_them() -> None:
    features, generator = smooth_features(), SaliencyGenerator(seed_grid=(6, 8))
    proposals = propose(generator, features)
    assert np.linalg.norm(proposals.features.astype(float), axis=1) == pytest.approx(1, abs=1e-3)
    dot = propose(SaliencyGenerator(seed_grid=(6, 8), similarity="dot"), features)
    for (y, x), feature in zip(dot.seeds, dot.features, strict=True):
        assert np.array_equal(feature, features[:, int(y * 6), int(x * 8)].half())


def test_the_recipe_step_by_step() -> None:
    """Eq. 3-4 with loops, for one seed grid and no suppression, threshold 0.6."""
    features = smooth_features(3)
    generator = SaliencyGenerator(seed_grid=(6, 8), threshold=0.6, nms_iou=1.0, max_proposals=48)
    proposals = propose(generator, features, (6, 8))
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
    found = {tuple(mask.ravel()) for mask in masks_of(proposals, (6, 8))}
    assert found == {tuple(mask.flatten().tolist()) for _, mask in expected}


def test_greedy_nms_leaves_no_two_alike() -> None:
    # At the feature map's own size the masks are those that NMS compared.
    proposals = propose(SaliencyGenerator(nms_iou=0.3), smooth_features(), (6, 8))
    objects = [{"size": [6, 8], "counts": counts} for counts in proposals.rle]
    assert len(proposals) > 1
    assert (coco_mask.iou(objects, objects, [0] * len(objects)) - np.eye(len(objects))).max() <= 0.3


def test_matrix_nms_keeps_overlapping_masks_at_lower_scores() -> None:
    features = smooth_features()
    greedy, matrix = (propose(SaliencyGenerator(nms=nms), features) for nms in ("greedy", "matrix"))
    assert len(matrix) == 20 > len(greedy)
    assert matrix.scores.tolist() == sorted(matrix.scores, reverse=True)
    assert matrix.scores[0] == greedy.scores[0]
    strong = propose(SaliencyGenerator(nms="matrix", nms_sigma=8.0), features)
    assert strong.scores.sum() < matrix.scores.sum()


def test_seed_grid_replaces_the_scales() -> None:
    proposals = propose(SaliencyGenerator(seed_grid=(1, 2), seed_scales=(1.0,)), smooth_features())
    assert {tuple(seed) for seed in proposals.seeds.tolist()} <= {(0.5, 0.25), (0.5, 0.75)}


def everything(features: int = 1, **settings: Any) -> set[tuple[float, ...]]:
    """Seeds of the proposals (each its own), for comparing what a filter leaves."""
    generator = SaliencyGenerator(max_proposals=50, nms_iou=0.9, **settings)
    return {tuple(seed) for seed in propose(generator, smooth_features(features)).seeds.tolist()}


def test_min_score_drops_exactly_the_lower_ones() -> None:
    proposals = propose(SaliencyGenerator(max_proposals=50, nms_iou=0.9), smooth_features(1))
    middle = float(np.median(proposals.scores))
    left = {tuple(seed) for seed in proposals.seeds[proposals.scores >= middle].tolist()}
    assert everything(min_score=middle) == left != everything()


def test_max_width_drops_exactly_the_masks_of_more_columns() -> None:
    """A mask in two parts at the image's sides is not as wide as its box."""
    proposals = propose(SaliencyGenerator(max_proposals=50, nms_iou=0.9), smooth_features(2))
    left, narrow = set(), set()
    for seed, mask in zip(proposals.seeds.tolist(), masks_of(proposals), strict=True):
        columns = mask.any(0).nonzero()[0]
        if len(columns) / SIZE[1] <= 0.95:
            left.add(tuple(seed))
        if (columns.max() - columns.min() + 1) / SIZE[1] <= 0.95:
            narrow.add(tuple(seed))
    assert everything(2, max_width=0.95) == left
    assert narrow < left < everything(2)


def test_top_margin_drops_exactly_the_masks_whose_rows_lie_above_it() -> None:
    """Each row counts once, however much of it is in the mask."""
    proposals = propose(SaliencyGenerator(max_proposals=50, nms_iou=0.9), smooth_features(1))
    left, by_pixels = set(), set()
    for seed, mask in zip(proposals.seeds.tolist(), masks_of(proposals), strict=True):
        if (mask.any(1).nonzero()[0].mean() + 0.5) / SIZE[0] >= 0.4:
            left.add(tuple(seed))
        if (mask.nonzero()[0].mean() + 0.5) / SIZE[0] >= 0.4:
            by_pixels.add(tuple(seed))
    assert everything(top_margin=0.4) == left
    assert left != by_pixels
    assert left < everything()


def test_min_cells_drops_small_masks() -> None:
    features = torch.zeros(2, 8, 8)
    features[0] = 1
    features[:, 0, 0] = torch.tensor([0.0, 1.0])
    assert (
        len(propose(SaliencyGenerator(seed_grid=(8, 8)), features, (8, 8))) == 1
    )  # the one cell is null, its surroundings not
    assert len(propose(SaliencyGenerator(seed_grid=(8, 8), min_cells=0), features, (8, 8))) == 2


def test_images_of_a_batch_do_not_see_each_other() -> None:
    """Also where their sizes differ, though their features have one shape."""
    features = torch.stack([smooth_features(seed) for seed in range(4)])
    sizes = [SIZE, (50, 70), SIZE, (7, 5)]
    for generator in (SaliencyGenerator(), SaliencyGenerator(nms="matrix"), SaliencyGenerator(similarity="dot")):
        batch = Batch(features, [ImageInfo(index, "", size) for index, size in enumerate(sizes)])
        for together, feature, size in zip(generator(batch), features, sizes, strict=True):
            alone = propose(generator, feature, size)
            assert list(together.rle) == list(alone.rle)
            assert np.allclose(together.scores, alone.scores, atol=1e-6)
            assert np.array_equal(together.seeds, alone.seeds)


FREE_MASKS = SaliencyGenerator(pooling="bilinear", nms="matrix", min_score=0.7, max_width=0.95, top_margin=0.2)


def test_free_masks_are_the_configs_and_fewer_than_without_filters() -> None:
    config = tomllib.loads((Path(__file__).parents[3] / "configs/proposals/freemask.toml").read_text())
    assert build_generator(config["generator"]) == FREE_MASKS
    for seed in range(3):
        free, unfiltered = (
            propose(make, smooth_features(seed))
            for make in (FREE_MASKS, SaliencyGenerator(pooling="bilinear", nms="matrix"))
        )
        assert len(free) < len(unfiltered)


def test_free_masks_are_decayed_cut_and_only_then_filtered() -> None:
    """So an image can have fewer than 20 where a filtered mask has taken the place of one that would pass."""
    for seed in range(5):
        uncut = propose(SaliencyGenerator(pooling="bilinear", nms="matrix", max_proposals=1000), smooth_features(seed))
        expected = [
            counts
            for counts, score, mask in zip(uncut.rle[:20], uncut.scores, masks_of(uncut), strict=False)
            if score >= 0.7 and mask.any(0).mean() <= 0.95 and (mask.any(1).nonzero()[0].mean() + 0.5) / SIZE[0] >= 0.2
        ]
        assert propose(FREE_MASKS, smooth_features(seed)).rle == expected


def test_a_seeds_component_leaves_out_other_objects_that_look_alike() -> None:
    features = block_features()
    features[:, 6:, 2:6] = torch.tensor([0.0, 1.0])[:, None, None]  # a second object with the same feature
    first, second = np.zeros((2, 8, 8), bool)
    first[2:5, 1:6] = second[6:, 2:6] = True
    whole = propose(SaliencyGenerator(seed_scales=(1.0,)), features, (8, 8))
    parts = propose(SaliencyGenerator(seed_scales=(1.0,), component="seed"), features, (8, 8))
    expected = {tuple(mask.ravel()) for mask in (first | second, ~(first | second))}
    assert {tuple(mask.ravel()) for mask in masks_of(whole, (8, 8))} == expected
    found = {tuple(mask.ravel()) for mask in masks_of(parts, (8, 8))}
    # The saliency of all cells of a part is the same, so that its first cell holds the seed of each.
    assert tuple(first.ravel()) in found
    assert tuple((first | second).ravel()) not in found


def test_settings_that_came_later_stand_in_the_parameters_only_if_they_are_set() -> None:
    """Sets that were made before can be continued."""
    assert {"component", "pooling"} & set(SaliencyGenerator().parameters()) == set()
    changed = SaliencyGenerator(component="seed", pooling="bilinear").parameters()
    assert (changed["component"], changed["pooling"]) == ("seed", "bilinear")
