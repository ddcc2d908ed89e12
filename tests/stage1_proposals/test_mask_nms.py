"""Mask NMS against slow loops written from the definitions."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from stage1_proposals.mask_nms import greedy_mask_nms, mask_iou, matrix_nms


def iou(a: Tensor, b: Tensor) -> float:
    union = int((a | b).sum())
    return int((a & b).sum()) / union if union else 0.0


def by_score(scores: Tensor) -> list[int]:
    return sorted(range(len(scores)), key=lambda index: -float(scores[index]))


@st.composite
def scored_masks(draw: st.DrawFn) -> tuple[Tensor, Tensor]:
    """Masks of four cells, so that many coincide or overlap, some empty; scores with ties."""
    count = draw(st.integers(0, 8))
    cells = draw(st.lists(st.integers(0, 15), min_size=count, max_size=count))
    scores = draw(st.lists(st.integers(0, 4), min_size=count, max_size=count))
    masks = torch.tensor([[[bool(value >> bit & 1) for bit in range(4)]] for value in cells], dtype=torch.bool)
    return masks.reshape(count, 1, 4), torch.tensor(scores, dtype=torch.float32) / 4


@settings(deadline=None, max_examples=50)
@given(scored_masks())
def test_iou_is_intersection_over_union_of_each_pair(case: tuple[Tensor, Tensor]) -> None:
    masks, _ = case
    ious = mask_iou(masks)
    for i in range(len(masks)):
        for j in range(len(masks)):
            assert float(ious[i, j]) == pytest.approx(iou(masks[i], masks[j]))


@settings(deadline=None, max_examples=100)
@given(scored_masks(), st.sampled_from([0.0, 0.25, 0.5, 1.0]), st.integers(1, 8))
def test_greedy_nms_is_the_slow_loop(case: tuple[Tensor, Tensor], threshold: float, max_kept: int) -> None:
    masks, scores = case
    kept: list[int] = []
    for index in by_score(scores):
        if len(kept) < max_kept and all(iou(masks[index], masks[other]) <= threshold for other in kept):
            kept.append(index)
    assert greedy_mask_nms(masks, scores, threshold, max_kept).tolist() == kept


@settings(deadline=None, max_examples=100)
@given(scored_masks(), st.sampled_from([0.25, 0.5]), st.integers(1, 8))
def test_what_greedy_nms_keeps_and_drops(case: tuple[Tensor, Tensor], threshold: float, max_kept: int) -> None:
    masks, scores = case
    kept = greedy_mask_nms(masks, scores, threshold, max_kept).tolist()
    assert len(kept) <= max_kept
    assert [float(scores[index]) for index in kept] == sorted((float(scores[index]) for index in kept), reverse=True)
    assert all(iou(masks[i], masks[j]) <= threshold for i in kept for j in kept if i != j)
    if len(kept) < max_kept:
        for dropped in set(range(len(masks))) - set(kept):
            assert any(
                iou(masks[dropped], masks[index]) > threshold and scores[index] >= scores[dropped] for index in kept
            )


def test_greedy_nms_drops_the_worse_of_two_that_overlap() -> None:
    masks = torch.tensor([[[1, 1, 1, 0]], [[1, 1, 1, 1]], [[0, 0, 0, 1]]], dtype=torch.bool)
    assert greedy_mask_nms(masks, torch.tensor([0.8, 0.9, 0.1]), 0.5, 20).tolist() == [1, 2]


def test_an_overlap_of_just_the_threshold_survives() -> None:
    masks = torch.tensor([[[1, 1, 0, 0]], [[1, 1, 1, 1]]], dtype=torch.bool)
    assert greedy_mask_nms(masks, torch.tensor([0.8, 0.9]), 0.5, 20).tolist() == [1, 0]


def slow_matrix_nms(masks: Tensor, scores: Tensor, sigma: float) -> list[float]:
    """score_j * min over better i of f(iou_ij) / f(iou_i); f = exp(-sigma iou^2), iou_i = max over k better than i."""
    order = by_score(scores)
    worst = [max([iou(masks[i], masks[k]) for k in order[:place]], default=0.0) for place, i in enumerate(order)]
    decayed = [0.0] * len(order)
    for place, j in enumerate(order):
        ratios = [
            math.exp(-sigma * iou(masks[i], masks[j]) ** 2) / math.exp(-sigma * worst[better] ** 2)
            for better, i in enumerate(order[:place])
        ]
        decayed[j] = float(scores[j]) * min(ratios, default=1.0)
    return decayed


@settings(deadline=None, max_examples=100)
@given(scored_masks(), st.sampled_from([0.5, 2.0]))
def test_matrix_nms_is_its_formula(case: tuple[Tensor, Tensor], sigma: float) -> None:
    masks, scores = case
    assert matrix_nms(masks, scores, sigma).tolist() == pytest.approx(slow_matrix_nms(masks, scores, sigma), abs=1e-5)


def test_matrix_nms_decays_a_copy_by_exp_minus_sigma() -> None:
    masks = torch.tensor([[[1, 1]], [[1, 1]]], dtype=torch.bool)
    decayed = matrix_nms(masks, torch.tensor([0.5, 1.0]), sigma=2.0)
    assert decayed.tolist() == pytest.approx([0.5 * math.exp(-2), 1.0])


def test_matrix_nms_leaves_masks_apart_alone() -> None:
    scores = torch.tensor([0.5, 1.0])
    assert torch.equal(matrix_nms(torch.eye(2, dtype=torch.bool)[:, None], scores), scores)
