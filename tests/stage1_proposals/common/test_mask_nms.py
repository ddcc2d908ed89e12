"""Mask NMS against slow loops written from the definitions."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from stage1_proposals.common.mask_nms import greedy_mask_nms, mask_iou, matrix_nms


def iou(a: Tensor, b: Tensor) -> float:
    union = int((a | b).sum())
    return int((a & b).sum()) / union if union else 0.0


def by_score(scores: Tensor) -> list[int]:
    return sorted(range(len(scores)), key=lambda index: -float(scores[index]))


@st.composite
def scored_masks(draw: st.DrawFn, count: int) -> tuple[Tensor, Tensor]:
    """Masks of four cells, so that many coincide or overlap, some empty; scores with ties."""
    cells = draw(st.lists(st.integers(0, 15), min_size=count, max_size=count))
    scores = draw(st.lists(st.integers(0, 4), min_size=count, max_size=count))
    masks = torch.tensor([[[bool(value >> bit & 1) for bit in range(4)]] for value in cells], dtype=torch.bool)
    return masks.reshape(count, 1, 4), torch.tensor(scores, dtype=torch.float32) / 4


Case = tuple[Tensor, Tensor, Tensor]


@st.composite
def batches(draw: st.DrawFn) -> list[Case]:
    """(masks, scores, valid) of one to three images with as many masks each."""
    count = draw(st.integers(1, 8))
    return [
        (*draw(scored_masks(count)), torch.tensor(draw(st.lists(st.booleans(), min_size=count, max_size=count))))
        for _ in range(draw(st.integers(1, 3)))
    ]


def stack(cases: list[Case]) -> list[Tensor]:
    return [torch.stack(parts) for parts in zip(*cases, strict=True)]


def greedy(masks: Tensor, scores: Tensor, threshold: float, max_kept: int) -> list[int]:
    """Greedy NMS of one image all of whose masks take part."""
    valid = torch.ones(1, len(masks), dtype=torch.bool)
    kept, real = greedy_mask_nms(masks[None], scores[None], valid, threshold, max_kept)
    return kept[real].tolist()


@settings(deadline=None, max_examples=50)
@given(scored_masks(5), scored_masks(3))
def test_iou_is_intersection_over_union_of_each_pair(a: tuple[Tensor, Tensor], b: tuple[Tensor, Tensor]) -> None:
    masks, others = a[0], b[0]
    ious = mask_iou(masks[None].flatten(2).float(), others[None].flatten(2).float())[0]
    for i in range(len(masks)):
        for j in range(len(others)):
            assert float(ious[i, j]) == pytest.approx(iou(masks[i], others[j]))


@settings(deadline=None, max_examples=100)
@given(batches(), st.sampled_from([0.0, 0.25, 0.5, 1.0]), st.integers(1, 8))
def test_greedy_nms_is_the_slow_loop_for_each_image(cases: list[Case], threshold: float, max_kept: int) -> None:
    kept, real = greedy_mask_nms(*stack(cases), threshold, max_kept)
    for found, are_real, (masks, scores, valid) in zip(kept, real, cases, strict=True):
        expected: list[int] = []
        for index in by_score(scores):
            apart = all(iou(masks[index], masks[other]) <= threshold for other in expected)
            if valid[index] and len(expected) < max_kept and apart:
                expected.append(index)
        assert found[are_real].tolist() == expected
        assert are_real.tolist() == sorted(are_real.tolist(), reverse=True)  # padding comes last


@settings(deadline=None, max_examples=100)
@given(scored_masks(8), st.sampled_from([0.25, 0.5]), st.integers(1, 8))
def test_what_greedy_nms_keeps_and_drops(case: tuple[Tensor, Tensor], threshold: float, max_kept: int) -> None:
    masks, scores = case
    kept = greedy(masks, scores, threshold, max_kept)
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
    assert greedy(masks, torch.tensor([0.8, 0.9, 0.1]), 0.5, 20) == [1, 2]


def test_an_overlap_of_just_the_threshold_survives() -> None:
    masks = torch.tensor([[[1, 1, 0, 0]], [[1, 1, 1, 1]]], dtype=torch.bool)
    assert greedy(masks, torch.tensor([0.8, 0.9]), 0.5, 20) == [1, 0]


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
@given(batches(), st.sampled_from([0.5, 2.0]))
def test_matrix_nms_is_its_formula_for_each_image(cases: list[Case], sigma: float) -> None:
    for found, (masks, scores, valid) in zip(matrix_nms(*stack(cases), sigma), cases, strict=True):
        expected = slow_matrix_nms(masks[valid], scores[valid], sigma)
        assert found[valid].tolist() == pytest.approx(expected, abs=1e-5)
        assert not found[~valid].any()


def matrix(masks: Tensor, scores: Tensor, sigma: float = 2.0) -> Tensor:
    """Matrix NMS of one image all of whose masks take part."""
    return matrix_nms(masks[None], scores[None], torch.ones(1, len(masks), dtype=torch.bool), sigma)[0]


def test_matrix_nms_decays_a_copy_by_exp_minus_sigma() -> None:
    masks = torch.tensor([[[1, 1]], [[1, 1]]], dtype=torch.bool)
    assert matrix(masks, torch.tensor([0.5, 1.0])).tolist() == pytest.approx([0.5 * math.exp(-2), 1.0])


def test_matrix_nms_leaves_masks_apart_alone() -> None:
    scores = torch.tensor([0.5, 1.0])
    assert torch.equal(matrix(torch.eye(2, dtype=torch.bool)[:, None], scores), scores)
