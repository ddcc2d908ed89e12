"""Mask non-maximum suppression (NMS of Eq. 4) as pure functions over tensors.

Both work on a batch of images at once and never wait for the device: what is kept is marked, not cut out.
Shapes: B images, L masks each, h x w cells, K kept.
"""

import torch
from torch import Tensor


def mask_iou(masks: Tensor, others: Tensor) -> Tensor:
    """Intersection over union of every mask with every other.

    Args:
        masks: 0 or 1, float (B, L, h * w).
        others: 0 or 1, float (B, M, h * w).

    Returns:
        (B, L, M); 0 between two empty masks.
    """
    intersection = masks @ others.transpose(1, 2)
    union = masks.sum(2)[:, :, None] + others.sum(2)[:, None, :] - intersection
    return intersection / union.clamp_min(1)


def greedy_mask_nms(
    masks: Tensor, scores: Tensor, valid: Tensor, iou_threshold: float, max_kept: int
) -> tuple[Tensor, Tensor]:
    """Greedy NMS: keep the best-scored mask, drop those that overlap it by more than the threshold, repeat.

    Equal scores are taken in input order. Only the overlaps with masks that are kept are computed.

    Args:
        masks: bool (B, L, h, w).
        scores: (B, L).
        valid: bool (B, L), masks that take part.
        iou_threshold: a mask survives next to a kept one up to this IoU, inclusive.
        max_kept: stop after this many.

    Returns:
        int64 (B, K), indices of kept masks by descending score, and bool (B, K), which of them are real: where fewer
        than K = min(max_kept, L) masks survive, the rest is padding.
    """
    order = torch.sort(scores, dim=1, descending=True, stable=True).indices
    flat = masks.flatten(2).float()
    area = flat.sum(2)
    alive = valid.gather(1, order)
    kept, real = [], []
    for _ in range(min(max_kept, scores.shape[1])):
        first = alive.to(torch.uint8).argmax(1, keepdim=True)
        real.append(alive.gather(1, first))
        best = order.gather(1, first)
        kept.append(best)
        picked = flat.gather(1, best[:, :, None].expand(-1, -1, flat.shape[2]))
        intersection = torch.bmm(flat, picked.transpose(1, 2))[:, :, 0]
        overlaps = intersection > iou_threshold * (area + area.gather(1, best) - intersection)
        overlaps.scatter_(1, best, True)
        alive = alive & ~overlaps.gather(1, order)
    return torch.cat(kept, 1), torch.cat(real, 1)


def matrix_nms(masks: Tensor, scores: Tensor, valid: Tensor, sigma: float = 2.0) -> Tensor:
    """Matrix NMS with gaussian decay: every score decayed by its overlaps with better masks, in one pass.

    decay_j = min over better-scored i of exp(-sigma * iou_ij^2) / exp(-sigma * iou_i^2), where iou_i is the
    largest overlap of i with a mask better than itself.

    Args:
        masks: bool (B, L, h, w).
        scores: (B, L), in [0, 1].
        valid: bool (B, L), masks that take part.
        sigma: strength of the decay.

    Returns:
        decayed scores (B, L), in input order; 0 where a mask takes no part.
    """
    scores = scores * valid
    order = torch.sort(scores, dim=1, descending=True, stable=True).indices
    # A mask that takes no part is empty here, so it overlaps with none.
    flat = (masks.flatten(2) & valid[:, :, None]).float()
    flat = flat.gather(1, order[:, :, None].expand_as(flat))
    iou = mask_iou(flat, flat).triu(diagonal=1)  # [i, j]: i is better than j
    worst = iou.amax(1)
    decay = torch.exp(-sigma * (iou**2 - worst[:, :, None] ** 2))
    better = torch.ones_like(iou, dtype=torch.bool).triu(diagonal=1)
    decay = torch.where(better, decay, 1.0).amin(1)
    return torch.empty_like(scores).scatter(1, order, scores.gather(1, order) * decay)
