import math

import pytest
import torch
import torch.nn.functional as F

from stage1_proposals.common.errors import UserError
from stage2_training.knet.assignment import Assignment, CostWeights, InstanceTargets, assign
from stage2_training.knet.losses import (
    PointSampling,
    dense_focal_loss,
    kernel_class_loss,
    match,
    matched_mask_losses,
    matched_masks,
    semantic_loss,
    semantic_map,
    uncertain_points,
    upsample_masks,
    values_at,
)

# Two images; image 0 has kernels 2 and 0 matched with instances 0 and 1, image 1 kernel 1 with instance 0.
ASSIGNMENT = Assignment(torch.tensor([0, 0, 1]), torch.tensor([2, 0, 1]), torch.tensor([0, 1, 0]))
NOTHING = Assignment(*torch.zeros(3, 0, dtype=torch.long))


@pytest.fixture
def targets() -> InstanceTargets:
    generator = torch.Generator().manual_seed(0)
    masks = (torch.randint(0, 5, (2, 2, 4, 6), generator=generator) / 4).float()
    masks[1, 1] = 0
    return InstanceTargets(masks, torch.tensor([[2, 0], [1, 0]]), [2, 1])


def all_pairs(logits: torch.Tensor, masks: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The pairs of `ASSIGNMENT`, with logits at the masks' own resolution."""
    pairs = ((0, 2, 0), (0, 0, 1), (1, 1, 0))
    return torch.stack([logits[i, n].flatten() for i, n, _ in pairs]), torch.stack(
        [masks[i, k].flatten() for i, _, k in pairs]
    )


def focal(logit: float, positive: bool) -> float:
    p = 1 / (1 + math.exp(-logit))
    return -0.25 * (1 - p) ** 2 * math.log(p) if positive else -0.75 * p**2 * math.log(1 - p)


def test_mask_losses_are_means_over_pairs(targets: InstanceTargets) -> None:
    logits = torch.randn(2, 3, 4, 6, generator=torch.Generator().manual_seed(1))
    entropy, dice = 0.0, 0.0
    for image, kernel, instance in ((0, 2, 0), (0, 0, 1), (1, 1, 0)):
        overlap = p_squares = t_squares = 0.0
        pairs = zip(logits[image, kernel].flatten().tolist(), targets.masks[image, instance].flatten(), strict=True)
        for x, t in pairs:
            p, t = 1 / (1 + math.exp(-x)), float(t)
            entropy -= (t * math.log(p) + (1 - t) * math.log(1 - p)) / 24 / 3
            overlap, p_squares, t_squares = overlap + p * t, p_squares + p * p, t_squares + t * t
        dice += (1 - 2 * overlap / (p_squares + 1e-3 + t_squares + 1e-3)) / 3
    actual = matched_mask_losses(*all_pairs(logits, targets.masks), ASSIGNMENT)
    assert actual[0].item() == pytest.approx(entropy, rel=1e-5)
    assert actual[1].item() == pytest.approx(dice, rel=1e-5)


def test_class_loss_is_per_pair(targets: InstanceTargets) -> None:
    logits = torch.randn(2, 3, 3, generator=torch.Generator().manual_seed(2))
    positives = {(0, 2, 2), (0, 0, 0), (1, 1, 1)}
    total = sum(
        focal(logits[i, n, k].item(), (i, n, k) in positives) for i in range(2) for n in range(3) for k in range(3)
    )
    assert kernel_class_loss(logits, targets.labels, ASSIGNMENT).item() == pytest.approx(total / 3, rel=1e-5)


def test_semantic_loss_is_per_foreground_pixel(targets: InstanceTargets) -> None:
    logits = torch.randn(2, 3, 4, 6, generator=torch.Generator().manual_seed(3))
    total, foreground = 0.0, 0
    for image in range(2):
        for y in range(4):
            for x in range(6):
                label = 3
                # Matched instances in ascending order of kernels: a later one covers an earlier one.
                for instance in ((1, 0), (0,))[image]:
                    if targets.masks[image, instance, y, x] > 0:
                        label = int(targets.labels[image, instance])
                foreground += label < 3
                total += sum(focal(logits[image, k, y, x].item(), k == label) for k in range(3))
    assert semantic_loss(logits, targets, ASSIGNMENT).item() == pytest.approx(total / foreground, rel=1e-5)


def test_semantic_map_leaves_unmatched_instances_out(targets: InstanceTargets) -> None:
    only_second = Assignment(torch.tensor([0]), torch.tensor([2]), torch.tensor([1]))
    labels = semantic_map(targets, only_second, num_classes=3)
    assert torch.equal(labels[0] == 0, targets.masks[0, 1] > 0)
    assert torch.equal(labels[0] == 3, targets.masks[0, 1] == 0)
    assert (labels[1] == 3).all()


def test_without_pairs_the_losses_are_finite_and_keep_the_graph(targets: InstanceTargets) -> None:
    masks = torch.randn(2, 3, 2, 3, requires_grad=True)
    scores = torch.randn(2, 3, 3, requires_grad=True)
    pixels = torch.randn(2, 3, 4, 6, requires_grad=True)
    entropy, dice = matched_mask_losses(*matched_masks(masks, targets.masks, NOTHING), NOTHING)
    assert entropy.item() == dice.item() == 0
    total = (
        entropy + dice + kernel_class_loss(scores, targets.labels, NOTHING) + semantic_loss(pixels, targets, NOTHING)
    )
    assert torch.isfinite(total)
    total.backward()
    assert (masks.grad == 0).all()
    assert (scores.grad != 0).all()
    assert (pixels.grad != 0).all()


def test_losses_are_float32_for_bfloat16_logits(targets: InstanceTargets) -> None:
    masks = torch.randn(2, 3, 2, 3, requires_grad=True).bfloat16()
    for loss in (
        *matched_mask_losses(*matched_masks(masks, targets.masks, ASSIGNMENT), ASSIGNMENT),
        kernel_class_loss(masks.mean(2), targets.labels, ASSIGNMENT),
        semantic_loss(upsample_masks(masks), targets, ASSIGNMENT),
    ):
        assert loss.dtype == torch.float32


@pytest.mark.parametrize("requires_grad", [False, True])
def test_upsampling_doubles_the_size(requires_grad: bool) -> None:
    ramp = torch.arange(4.0).expand(1, 1, 3, 4).clone().requires_grad_(requires_grad)
    assert upsample_masks(ramp)[0, 0, 0].tolist() == [0, 0.25, 0.75, 1.25, 1.75, 2.25, 2.75, 3]
    assert upsample_masks(ramp).shape == (1, 1, 6, 8)


@pytest.mark.parametrize("size", [(1, 1), (3, 5), (16, 7)])
def test_upsampling_is_torchs_bilinear_interpolation_both_ways(size: tuple[int, int]) -> None:
    logits = torch.randn(2, 3, *size, dtype=torch.float32, requires_grad=True)
    expected = F.interpolate(logits, scale_factor=2, mode="bilinear", align_corners=False)
    weights = torch.randn_like(expected)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        actual = upsample_masks(logits)
    torch.testing.assert_close(actual, expected)
    torch.testing.assert_close(*(torch.autograd.grad((each * weights).sum(), logits)[0] for each in (actual, expected)))


def test_matched_masks_are_those_of_all_masks_upsampled(targets: InstanceTargets) -> None:
    logits = torch.randn(2, 3, 2, 3)
    expected = all_pairs(upsample_masks(logits), targets.masks)
    for actual, by_hand in zip(matched_masks(logits, targets.masks, ASSIGNMENT), expected, strict=True):
        torch.testing.assert_close(actual, by_hand)


@pytest.mark.parametrize("classes", [1, 3])
def test_the_dense_focal_loss_is_that_of_each_pixel_and_class(classes: int) -> None:
    logits = 6 * torch.randn(2, classes, 3, 4, generator=torch.Generator().manual_seed(4))
    labels = torch.randint(0, classes + 1, (2, 3, 4), generator=torch.Generator().manual_seed(5))
    total = sum(
        focal(logits[i, k, y, x].item(), labels[i, y, x] == k)
        for i in range(2) for k in range(classes) for y in range(3) for x in range(4)
    )  # fmt: skip
    assert dense_focal_loss(logits, labels).item() == pytest.approx(total, rel=1e-5)


def test_the_dense_focal_loss_has_finite_gradients_at_any_logit() -> None:
    logits = torch.tensor([-200.0, -30, 0, 30, 200]).repeat(2, 1).reshape(2, 1, 1, 5).requires_grad_()
    loss = dense_focal_loss(logits, torch.tensor([0, 1])[:, None, None].expand(2, 1, 5))
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(logits.grad).all()


def test_matching_on_points_of_uniform_masks_is_matching_on_all_pixels() -> None:
    # Where masks and predictions do not change within an image, any points stand for all pixels.
    generator = torch.Generator().manual_seed(6)
    levels = torch.rand(2, 4, generator=generator)
    targets = InstanceTargets(levels[..., None, None].expand(-1, -1, 4, 6), torch.zeros(2, 4, dtype=torch.long), [4, 2])
    logits = torch.randn(2, 5, 1, 1, generator=generator).expand(-1, -1, 2, 3)
    weights = CostWeights()
    expected = assign(upsample_masks(logits), None, targets, weights)
    for points in (PointSampling(), PointSampling(cost_points=24)):
        found = match(logits, None, targets, weights, points)
        for actual, by_hand in zip(vars(found).values(), vars(expected).values(), strict=True):
            assert torch.equal(actual, by_hand)


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


def test_without_pairs_the_losses_on_points_are_0_and_keep_the_graph() -> None:
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
