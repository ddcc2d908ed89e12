"""The instances of a batch, and the bipartite matching of kernels with them (focal, dice and mask cost)."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from mmdet.structures import DetDataSample
from mmdet.structures.mask import BitmapMasks
from mmdet.utils import reduce_mean
from mmengine.dist import get_world_size
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from stage2_training.data.rle_masks import masks_at

# Of both the matching cost and the losses.
DICE_EPS = 1e-3
FOCAL_ALPHA = 0.25
FOCAL_GAMMA = 2.0


@dataclass(frozen=True)
class Assignment:
    """The M matched pairs of a batch: kernel `kernel[m]` of image `image[m]` with instance `instance[m]`.

    `x[image, kernel]` picks the matched rows of a (B, N, ...) tensor, `y[image, instance]` those of a (B, L, ...).

    Attributes:
        image, kernel, instance: int64 (M,).
    """

    image: Tensor
    kernel: Tensor
    instance: Tensor

    def __len__(self) -> int:
        return len(self.image)

    @cached_property
    def mean_pairs(self) -> Tensor:
        """float32 scalar: M, averaged over processes (`mean_count`), which communicate once for all losses."""
        # `torch.full` on the device: `torch.tensor` would synchronise with it.
        return mean_count(torch.full((), len(self), device=self.image.device))


def mean_count(count: Tensor) -> Tensor:
    """float32 scalar: a count of this process, averaged over processes; the sum over processes is at least 1.

    DDP averages gradients over processes, so a sum divided by this is divided by the whole batch's count.
    """
    return reduce_mean(count.float()).clamp(min=1 / get_world_size())


class InstanceTargets(NamedTuple):
    """The instances of a batch; rows from `counts[b]` on are padding."""

    masks: Tensor  # float32 (B, L, h, w): the fraction of each pixel that the instance covers
    labels: Tensor  # int64 (B, L)
    counts: list[int]  # instances of each image


def instance_targets(batch_data_samples: Sequence[DetDataSample], size: tuple[int, int]) -> InstanceTargets:
    """Collect `gt_instances`, masks bilinearly resized from the padded input to `size` (h, w).

    L is the largest number of instances in an image, but at least 1, so that a batch without instances needs no
    special case.
    """
    masks, labels = [], []
    for sample in batch_data_samples:
        instances = sample.gt_instances
        masks.append(_keep_few_pixels(masks_at(instances.masks, size, instances.labels.device), instances.masks))
        labels.append(instances.labels)
    counts = [len(image_labels) for image_labels in labels]
    padded_masks, padded_labels = (pad_sequence(masks, batch_first=True), pad_sequence(labels, batch_first=True))
    if max(counts) == 0:
        padded_masks = padded_masks.new_zeros(len(counts), 1, *size)
        padded_labels = padded_labels.new_zeros(len(counts), 1)
    return InstanceTargets(padded_masks, padded_labels, counts)


def _keep_few_pixels(resized: Tensor, masks: BitmapMasks) -> Tensor:
    """Masks (L, h, w) of which none is empty: bilinear resizing misses one that lies between the pixels that it takes.

    Such a mask gets the share of each cell that it covers.

    Args:
        resized: float32 (L, h, w).
        masks: the L masks at their own size.
    """
    few = np.flatnonzero(masks.areas * resized[:1].numel() < masks.height * masks.width)  # less than a cell
    if len(few) == 0:
        return resized
    shares = masks[few].to_tensor(torch.float32, resized.device)
    shares = F.interpolate(shares[None], size=resized.shape[1:], mode="area")[0]
    rows = torch.from_numpy(few).to(resized.device)
    missed = resized[rows].sum(dim=(1, 2), keepdim=True) == 0
    return resized.index_copy(0, rows, torch.where(missed, shares, resized[rows]))


@dataclass(frozen=True)
class CostWeights:
    """Weights of the terms of the matching cost."""

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

    Where a cost is NaN, because the network has diverged, the matching is arbitrary; the loss is NaN, too.
    """
    cost = matching_cost(mask_logits, cls_logits, targets, weights)
    pairs = match_images(cost.cpu(), targets.counts).to(cost.device, non_blocking=True)
    return Assignment(*pairs)


def match_images(cost: Tensor, counts: Sequence[int]) -> Tensor:
    """Costs (B, N, L) on the CPU, of which image b uses `counts[b]` columns -> the rows of an `Assignment`, (3, M)."""
    pairs = []
    for image, count in enumerate(counts):
        kernel, instance = map(torch.from_numpy, linear_sum_assignment(cost[image, :, :count].nan_to_num().numpy()))
        pairs.append(torch.stack([torch.full_like(kernel, image), kernel, instance]))
    return torch.cat(pairs, dim=1)


def matching_cost(
    mask_logits: Tensor, cls_logits: Tensor | None, targets: InstanceTargets, weights: CostWeights
) -> Tensor:
    """float32 (B, N, L): the cost of matching each kernel with each instance; padding columns are arbitrary."""
    with torch.autocast(mask_logits.device.type, enabled=False):
        cost = mask_costs(mask_logits.float().sigmoid().flatten(2), targets.masks.flatten(2), weights)
        if cls_logits is not None:
            cost = cost + weights.cls * focal_cost(cls_logits.float(), targets.labels)
    return cost


def mask_costs(probs: Tensor, masks: Tensor, weights: CostWeights) -> Tensor:
    """Weighted sum of dice and mask cost: probabilities (B, N, P) and masks (B, L, P) of P pixels -> (B, N, L).

    The dice cost is the negated similarity, with squared denominators. The mask cost is the negated mean over pixels of
    the agreement `p t + (1 - p)(1 - t) = 1 - p - t + 2 p t`. So one matrix product and four sums give both.
    """
    overlap = probs @ masks.mT
    sizes = (squares(probs) + DICE_EPS)[:, :, None] + (squares(masks) + DICE_EPS)[:, None, :]
    differing = probs.sum(-1)[:, :, None] + masks.sum(-1)[:, None, :] - 2 * overlap
    return weights.dice * -2 * overlap / sizes + weights.mask * (differing / probs.shape[-1] - 1)


def squares(values: Tensor) -> Tensor:
    """Sum of squares over the last dimension, without a copy of the squares."""
    return torch.linalg.vector_norm(values, dim=-1).square()


def focal_cost(cls_logits: Tensor, labels: Tensor) -> Tensor:
    """Focal loss of each label as a positive minus that as a negative: (B, N, K) and (B, L) -> (B, N, L)."""
    probs = cls_logits.sigmoid()
    positive = -FOCAL_ALPHA * (1 - probs) ** FOCAL_GAMMA * F.logsigmoid(cls_logits)
    negative = -(1 - FOCAL_ALPHA) * probs**FOCAL_GAMMA * F.logsigmoid(-cls_logits)
    columns = labels[:, None, :].expand(-1, cls_logits.shape[1], -1)
    return (positive - negative).gather(2, columns)
