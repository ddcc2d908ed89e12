import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stage2_training.knet import postprocess
from stage2_training.knet.postprocess import mask_boxes, predict_instances

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
