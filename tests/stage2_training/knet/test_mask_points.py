import pytest
import torch

from stage1_proposals.common.errors import UserError
from stage2_training.knet.assignment import Assignment
from stage2_training.knet.losses import (
    PointSampling,
    matched_mask_losses,
    matched_masks,
    uncertain_points,
    upsample_masks,
    values_at,
)

ASSIGNMENT = Assignment(torch.tensor([0, 0, 1]), torch.tensor([2, 0, 1]), torch.tensor([0, 1, 0]))
NOTHING = Assignment(*torch.zeros(3, 0, dtype=torch.long))


def pixel_centres(height: int, width: int) -> torch.Tensor:
    """(1, height * width, 2)."""
    y, x = torch.meshgrid((torch.arange(height) + 0.5) / height, (torch.arange(width) + 0.5) / width, indexing="ij")
    return torch.stack([x, y], dim=2).reshape(1, -1, 2)


def test_at_all_pixels_maps_have_the_values_of_the_upsampled_maps() -> None:
    logits, masks = torch.randn(2, 3, 4, 6), torch.rand(2, 2, 8, 12)
    points = pixel_centres(8, 12).expand(2, -1, -1)
    torch.testing.assert_close(values_at(logits, points), upsample_masks(logits).flatten(2))
    torch.testing.assert_close(values_at(masks, points), masks.flatten(2))


def test_with_all_pixels_as_points_the_losses_are_the_full_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "stage2_training.knet.losses.uncertain_points",
        lambda logits, count: pixel_centres(8, 12)[:, :count].expand(len(logits), -1, -1),
    )
    logits, masks = torch.randn(2, 3, 4, 6), torch.rand(2, 2, 8, 12)
    full, sampled = (
        matched_mask_losses(*matched_masks(logits, masks, ASSIGNMENT, points), ASSIGNMENT)
        for points in (PointSampling(), PointSampling(mask_points=96))
    )
    torch.testing.assert_close(sampled, full)


def test_most_points_lie_where_the_mask_is_uncertain() -> None:
    # Certain everywhere but in the left tenth of the first mask and the lower tenth of the second.
    logits = torch.full((2, 40, 40), 9.0)
    logits[0, :, :4] = 0
    logits[1, 36:] = 0
    torch.manual_seed(0)
    points = uncertain_points(logits, 200)
    assert points.shape == (2, 200, 2)
    assert ((points >= 0) & (points <= 1)).all()
    uncertain = torch.stack([points[0, :, 0] < 0.12, points[1, :, 1] > 0.88]).float().mean(1)
    # Of the 600 candidates 60 or so lie there, all of which are taken, and a tenth of the 50 that are anywhere.
    assert ((uncertain > 0.2) & (uncertain < 0.5)).all()


def test_gradients_flow_into_the_logits_and_not_into_the_choice_of_points() -> None:
    logits = torch.randn(2, 3, 4, 6, requires_grad=True)
    masks = torch.rand(2, 2, 8, 12)
    pairs = matched_masks(logits, masks, ASSIGNMENT, PointSampling(mask_points=50))
    assert pairs[0].shape == pairs[1].shape == (3, 50)
    sum(matched_mask_losses(*pairs, ASSIGNMENT)).backward()
    matched = torch.zeros(2, 3, dtype=torch.bool)
    matched[ASSIGNMENT.image, ASSIGNMENT.kernel] = True
    assert torch.equal((logits.grad != 0).flatten(2).any(2), matched)


def test_without_pairs_the_losses_are_0_and_keep_the_graph() -> None:
    logits = torch.randn(2, 3, 4, 6, requires_grad=True)
    pairs = matched_masks(logits, torch.zeros(2, 1, 8, 12), NOTHING, PointSampling(mask_points=50))
    losses = matched_mask_losses(*pairs, NOTHING)
    assert [loss.item() for loss in losses] == [0, 0]
    sum(losses).backward()
    assert (logits.grad == 0).all()


@pytest.mark.parametrize(
    "settings", [{"mask_points": 0}, {"cost_points": -3}, {"mask_points": 0.5}, {"cost_points": True}]
)
def test_a_number_of_points_that_is_none_is_a_user_error(settings: dict) -> None:
    with pytest.raises(UserError, match=r"train_cfg.*: use None or an integer from 1 up"):
        PointSampling(**settings)
