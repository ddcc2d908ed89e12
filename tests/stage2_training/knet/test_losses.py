import math

import pytest
import torch

from stage2_training.knet.assignment import Assignment
from stage2_training.knet.losses import (
    kernel_class_loss,
    matched_mask_losses,
    semantic_loss,
    semantic_map,
    upsample_masks,
)
from stage2_training.knet.targets import InstanceTargets

# Two images; image 0 has kernels 2 and 0 matched with instances 0 and 1, image 1 kernel 1 with instance 0.
ASSIGNMENT = Assignment(torch.tensor([0, 0, 1]), torch.tensor([2, 0, 1]), torch.tensor([0, 1, 0]))
NOTHING = Assignment(*torch.zeros(3, 0, dtype=torch.long))


@pytest.fixture
def targets() -> InstanceTargets:
    generator = torch.Generator().manual_seed(0)
    masks = (torch.randint(0, 5, (2, 2, 4, 6), generator=generator) / 4).float()
    masks[1, 1] = 0
    return InstanceTargets(masks, torch.tensor([[2, 0], [1, 0]]), [2, 1])


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
    actual = matched_mask_losses(logits, targets.masks, ASSIGNMENT)
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
                # Matched instances by rising kernel: a later one covers an earlier one.
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
    masks = torch.randn(2, 3, 4, 6, requires_grad=True)
    scores = torch.randn(2, 3, 3, requires_grad=True)
    pixels = torch.randn(2, 3, 4, 6, requires_grad=True)
    entropy, dice = matched_mask_losses(masks, targets.masks, NOTHING)
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
    masks = torch.randn(2, 3, 4, 6).bfloat16()
    for loss in (
        *matched_mask_losses(masks, targets.masks, ASSIGNMENT),
        kernel_class_loss(masks.mean(2)[..., :3], targets.labels, ASSIGNMENT),
        semantic_loss(masks, targets, ASSIGNMENT),
    ):
        assert loss.dtype == torch.float32


def test_upsampling_doubles_the_size() -> None:
    ramp = torch.arange(4.0).expand(1, 1, 3, 4)
    assert upsample_masks(ramp)[0, 0, 0].tolist() == [0, 0.25, 0.75, 1.25, 1.75, 2.25, 2.75, 3]
    assert upsample_masks(ramp).shape == (1, 1, 6, 8)
