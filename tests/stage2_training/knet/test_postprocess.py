import math

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stage2_training.knet import postprocess
from stage2_training.knet.postprocess import mask_boxes, predict_instances, rescored

SIZES = {"padded_size": (32, 64), "image_size": (32, 48), "output_size": (64, 96)}


@given(hnp.arrays(bool, st.tuples(st.integers(0, 3), st.integers(1, 6), st.integers(1, 6))))
@settings(deadline=None, max_examples=50)
def test_boxes_are_tight(masks: np.ndarray) -> None:
    boxes = mask_boxes(torch.from_numpy(masks))
    assert boxes.shape == (len(masks), 4)
    assert boxes.dtype == torch.float32
    for mask, box in zip(masks, boxes.tolist(), strict=True):
        rows, columns = np.nonzero(mask)
        expected = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1] if len(rows) else [0, 0, 0, 0]
        assert box == expected


def test_the_best_pairs_come_first_with_their_kernels_masks() -> None:
    scores = torch.full((3, 2), -5.0)
    scores[2, 1], scores[0, 0], scores[2, 0] = 3.0, 2.0, 1.0
    masks = torch.full((3, 4, 8), -10.0)
    masks[0, :2] = 10  # the upper half
    masks[2, :, :3] = 10  # the left half of the 48 pixels that are image
    found = predict_instances(scores, masks, **SIZES, max_per_img=3)
    assert found.labels.tolist() == [1, 0, 0]
    torch.testing.assert_close(found.scores, torch.tensor([3.0, 2.0, 1.0]).sigmoid())
    assert found.masks.shape == (3, 64, 96)
    assert found.masks.dtype == torch.bool
    upper, left = torch.zeros(64, 96, dtype=torch.bool), torch.zeros(64, 96, dtype=torch.bool)
    upper[:32], left[:, :48] = True, True
    for mask, expected in zip(found.masks, (left, upper, left), strict=True):
        assert (mask ^ expected).float().mean() < 0.02  # but for the interpolated edge
    assert torch.equal(found.bboxes, mask_boxes(found.masks))


def test_an_empty_mask_has_a_zero_box() -> None:
    found = predict_instances(torch.zeros(1, 1), torch.full((1, 4, 8), -10.0), **SIZES)
    assert not found.masks.any()
    assert found.bboxes.tolist() == [[0, 0, 0, 0]]


def test_no_more_than_there_are() -> None:
    found = predict_instances(torch.randn(20, 2), torch.randn(20, 4, 8), **SIZES, max_per_img=100)
    assert len(found) == 40
    found = predict_instances(torch.randn(20, 2), torch.randn(20, 4, 8), **SIZES, max_per_img=7)
    assert len(found) == 7
    assert (found.scores.diff() <= 0).all()


def test_threshold() -> None:
    logits = torch.zeros(1, 4, 8)  # probability 0.5 everywhere
    assert not predict_instances(torch.zeros(1, 1), logits, **SIZES).masks.any()
    assert predict_instances(torch.zeros(1, 1), logits, **SIZES, mask_threshold=0.4).masks.all()


@pytest.mark.parametrize("count", [0, 5, 40])
def test_of_low_scores_no_masks_are_made(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    scores, masks = torch.randn(20, 2), torch.randn(20, 4, 8)
    everything = predict_instances(scores, masks, **SIZES)
    enlarged: list[int] = []
    resize = postprocess.resize_masks
    monkeypatch.setattr(
        postprocess, "resize_masks", lambda logits, *sizes: enlarged.append(len(logits)) or resize(logits, *sizes)
    )
    limit = 1.0 if count == 0 else float(everything.scores[count - 1])
    found = predict_instances(scores, masks, **SIZES, min_score=limit)
    assert len(found) == count
    assert sum(enlarged) <= count
    for name, values in found.items():
        assert values.dtype == everything[name].dtype
        assert torch.equal(values, everything[name][:count])


def test_of_the_kernels_that_find_one_object_the_best_keeps_its_score() -> None:
    masks = torch.full((1, 4, 4, 8), -20.0)
    masks[0, :2, :2] = 20  # two find the upper half,
    masks[0, 2, 2:] = 20  # one the lower,
    scores = torch.tensor([[[0.8, 0.1], [0.9, 0.1], [0.7, 0.6], [0.6, 0.9]]])  # and one nothing
    found = rescored(scores, masks)[0]
    duplicate = math.exp(-2)  # sigma 2, IoU 1
    expected = [[0.8 * duplicate, 0.1], [0.9, 0.1 * duplicate], [0.7, 0.6], [0, 0]]  # of equals, the first is better
    torch.testing.assert_close(found, torch.tensor(expected))


def test_an_uncertain_mask_has_a_lower_score() -> None:
    masks = torch.full((1, 1, 4, 8), -20.0)
    masks[0, 0, :2] = 20
    masks[0, 0, 2] = torch.tensor(0.6).logit()  # a third of it with probability 0.6
    certainty = (2 * 1.0 + 0.6) / 3
    torch.testing.assert_close(rescored(torch.full((1, 1, 1), 0.5), masks), torch.full((1, 1, 1), 0.5 * certainty))
    only_certain = rescored(torch.full((1, 1, 1), 0.5), masks, mask_threshold=0.7)
    torch.testing.assert_close(only_certain, torch.full((1, 1, 1), 0.5))


def test_rescoring_changes_the_order_but_no_mask() -> None:
    scores, masks = torch.randn(20, 2), 5 * torch.randn(20, 4, 8)
    plain = predict_instances(scores, masks, **SIZES)
    found = predict_instances(scores, masks, **SIZES, rescore=True)
    torch.testing.assert_close(
        found.scores, rescored(scores.sigmoid()[None], masks[None]).flatten().sort().values.flip(0)
    )
    pairs = rescored(scores.sigmoid()[None], masks[None]).flatten().argsort(descending=True)
    places = scores.flatten().argsort(descending=True).argsort()  # of all pairs, by their classes' scores
    assert torch.equal(found.masks, plain.masks[places[pairs]])
    assert torch.equal(found.labels, plain.labels[places[pairs]])
    assert found.masks.sum() == plain.masks.sum()
    few = predict_instances(scores, masks, **SIZES, rescore=True, min_score=float(found.scores[4]))
    assert torch.equal(few.masks, found.masks[:5])
