"""Bipartite matching of kernels with instances (K-Net: focal + dice + mask cost)."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from stage2_training.assignments import Assignment
from stage2_training.knet.targets import InstanceTargets

DICE_EPS = 1e-3
FOCAL_ALPHA = 0.25
FOCAL_GAMMA = 2.0


@dataclass(frozen=True)
class CostWeights:
    """How much each term of the matching cost counts."""

    cls: float = 2.0
    dice: float = 4.0
    mask: float = 1.0


@torch.no_grad()
def assign(
    mask_logits: Tensor, cls_logits: Tensor | None, targets: InstanceTargets, weights: CostWeights
) -> Assignment:
    """Cheapest one-to-one matching in every image: min(N, instances) pairs each.

    Args:
        mask_logits: (B, N, h, w), at the resolution of the targets.
        cls_logits: (B, N, K), or None to leave the class cost out.
        targets: the batch's instances.
        weights: of the cost terms.

    Where a cost is not a number (the network has diverged) the matching is any; the loss is not a number either.
    """
    cost = matching_cost(mask_logits, cls_logits, targets, weights)
    pairs = match_images(cost.cpu(), targets.counts).to(cost.device, non_blocking=True)
    return Assignment(*pairs)


def match_images(cost: Tensor, counts: Sequence[int]) -> Tensor:
    """Costs (B, N, L) on the CPU, of which image b uses `counts[b]` columns -> int64 (3, M), as in `Assignment`."""
    pairs = []
    for image, count in enumerate(counts):
        kernel, instance = map(torch.from_numpy, linear_sum_assignment(cost[image, :, :count].nan_to_num().numpy()))
        pairs.append(torch.stack([torch.full_like(kernel, image), kernel, instance]))
    return torch.cat(pairs, dim=1)


def matching_cost(
    mask_logits: Tensor, cls_logits: Tensor | None, targets: InstanceTargets, weights: CostWeights
) -> Tensor:
    """float32 (B, N, L): cost of each kernel for each instance; the columns of padding mean nothing."""
    with torch.autocast(mask_logits.device.type, enabled=False):
        cost = mask_costs(mask_logits.float().sigmoid().flatten(2), targets.masks.flatten(2), weights)
        if cls_logits is not None:
            cost = cost + weights.cls * focal_cost(cls_logits.float(), targets.labels)
    return cost


def mask_costs(probs: Tensor, masks: Tensor, weights: CostWeights) -> Tensor:
    """Dice and mask cost, weighted: probabilities (B, N, P) and masks (B, L, P) of P pixels -> (B, N, L).

    Dice: negated similarity with squared denominators. Mask: negated mean agreement `p t + (1 - p)(1 - t)` over
    pixels, which is that of `1 - p - t + 2 p t`, so that both come from one product and four sums.
    """
    overlap = probs @ masks.mT
    sizes = (squares(probs) + DICE_EPS)[:, :, None] + (squares(masks) + DICE_EPS)[:, None, :]
    differing = probs.sum(-1)[:, :, None] + masks.sum(-1)[:, None, :] - 2 * overlap
    return weights.dice * -2 * overlap / sizes + weights.mask * (differing / probs.shape[-1] - 1)


def squares(values: Tensor) -> Tensor:
    """Sum of squares over the last dimension, without a copy of the squares."""
    return torch.linalg.vector_norm(values, dim=-1).square()


def focal_cost(cls_logits: Tensor, labels: Tensor) -> Tensor:
    """Focal loss as a positive minus as a negative, for each label: (B, N, K) and (B, L) -> (B, N, L)."""
    probs = cls_logits.sigmoid()
    positive = -FOCAL_ALPHA * (1 - probs) ** FOCAL_GAMMA * F.logsigmoid(cls_logits)
    negative = -(1 - FOCAL_ALPHA) * probs**FOCAL_GAMMA * F.logsigmoid(-cls_logits)
    columns = labels[:, None, :].expand(-1, cls_logits.shape[1], -1)
    return (positive - negative).gather(2, columns)
