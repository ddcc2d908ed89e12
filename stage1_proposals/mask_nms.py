"""Mask non-maximum suppression (NMS of Eq. 4) as pure functions over tensors."""

import torch
from torch import Tensor


def mask_iou(masks: Tensor) -> Tensor:
    """Pairwise intersection over union of masks.

    Args:
        masks: bool (L, h, w).

    Returns:
        float32 (L, L); 0 between two empty masks.
    """
    flat = masks.flatten(1).float()
    intersection = flat @ flat.T
    area = flat.sum(1)
    union = area[:, None] + area[None, :] - intersection
    return intersection / union.clamp_min(1)


def greedy_mask_nms(masks: Tensor, scores: Tensor, iou_threshold: float, max_kept: int) -> Tensor:
    """Greedy NMS: keep the best-scored mask, drop those that overlap it by more than the threshold, repeat.

    Equal scores are taken in input order.

    Args:
        masks: bool (L, h, w).
        scores: (L,), in [0, 1].
        iou_threshold: a mask survives next to a kept one up to this IoU, inclusive.
        max_kept: stop after this many.

    Returns:
        int64 (K,), indices of kept masks by descending score, K <= max_kept.
    """
    order = torch.sort(scores, descending=True, stable=True).indices
    overlaps = mask_iou(masks[order]) > iou_threshold
    alive = torch.ones(len(order), dtype=torch.bool, device=masks.device)
    kept: list[int] = []
    while len(kept) < max_kept and bool(alive.any()):
        best = int(alive.to(torch.uint8).argmax())
        kept.append(best)
        alive &= ~overlaps[best]
        alive[best] = False  # an empty mask does not overlap itself
    return order[torch.tensor(kept, dtype=torch.int64, device=masks.device)]


def matrix_nms(masks: Tensor, scores: Tensor, sigma: float = 2.0) -> Tensor:
    """Matrix NMS with gaussian decay: every score decayed by its overlaps with better masks, in one pass.

    decay_j = min over better-scored i of exp(-sigma * iou_ij^2) / exp(-sigma * iou_i^2), where iou_i is the
    largest overlap of i with a mask better than itself.

    Args:
        masks: bool (L, h, w).
        scores: (L,), in [0, 1].
        sigma: strength of the decay.

    Returns:
        decayed scores (L,), in input order.
    """
    if not len(scores):
        return scores
    order = torch.sort(scores, descending=True, stable=True).indices
    iou = mask_iou(masks[order]).triu(diagonal=1)  # [i, j]: i is better than j
    worst = iou.amax(0)
    decay = torch.exp(-sigma * (iou**2 - worst[:, None] ** 2))
    better = torch.ones_like(iou, dtype=torch.bool).triu(diagonal=1)
    decay = torch.where(better, decay, torch.ones_like(decay)).amin(0)
    return torch.empty_like(scores).scatter(0, order, scores[order] * decay)
