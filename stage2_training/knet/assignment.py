"""Bipartite matching of kernels with instances (K-Net: focal + dice + mask cost)."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from scipy.optimize import linear_sum_assignment
from torch import Tensor

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


@dataclass(frozen=True)
class Assignment:
    """The M matched pairs of a batch: kernel `kernel[m]` of image `image[m]` has found its instance `instance[m]`.

    `x[image, kernel]` picks the matched rows of a (B, N, ...) tensor, `y[image, instance]` those of a (B, L, ...).

    Attributes:
        image, kernel, instance: int64 (M,).
    """

    image: Tensor
    kernel: Tensor
    instance: Tensor

    def __len__(self) -> int:
        return len(self.image)


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
        probs = mask_logits.float().sigmoid().flatten(2)
        masks = targets.masks.flatten(2)
        cost = weights.dice * dice_cost(probs, masks) + weights.mask * mask_cost(probs, masks)
        if cls_logits is not None:
            cost = cost + weights.cls * focal_cost(cls_logits.float(), targets.labels)
    return cost


def dice_cost(probs: Tensor, masks: Tensor) -> Tensor:
    """Negated dice similarity with squared denominators: (B, N, P) and (B, L, P) -> (B, N, L)."""
    overlap = torch.einsum("bnp,blp->bnl", probs, masks)
    sizes = (probs.square().sum(-1) + DICE_EPS)[:, :, None] + (masks.square().sum(-1) + DICE_EPS)[:, None, :]
    return -2 * overlap / sizes


def mask_cost(probs: Tensor, masks: Tensor) -> Tensor:
    """Negated mean agreement `p t + (1 - p)(1 - t)` over pixels: (B, N, P) and (B, L, P) -> (B, N, L)."""
    both = torch.einsum("bnp,blp->bnl", probs, masks)
    neither = torch.einsum("bnp,blp->bnl", 1 - probs, 1 - masks)
    return -(both + neither) / probs.shape[-1]


def focal_cost(cls_logits: Tensor, labels: Tensor) -> Tensor:
    """Focal loss as a positive minus as a negative, for each label: (B, N, K) and (B, L) -> (B, N, L)."""
    probs = cls_logits.sigmoid()
    positive = -FOCAL_ALPHA * (1 - probs) ** FOCAL_GAMMA * F.logsigmoid(cls_logits)
    negative = -(1 - FOCAL_ALPHA) * probs**FOCAL_GAMMA * F.logsigmoid(-cls_logits)
    columns = labels[:, None, :].expand(-1, cls_logits.shape[1], -1)
    return (positive - negative).gather(2, columns)
