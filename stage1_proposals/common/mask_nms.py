"""Mask non-maximum suppression (NMS of Eq. 4) as pure functions over tensors.

Both kinds work on a batch of images at once and never wait for the device: instead of being removed, masks are marked.
Stage 2's scores decay by it, too. Shapes: B images, L masks each, h x w cells, K kept.
"""

import torch
from torch import Tensor


def mask_iou(masks: Tensor, others: Tensor) -> Tensor:
    """Intersection over union of all pairs of masks.

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
    """Greedy NMS: keep the mask with the highest score, drop those whose IoU with it is too large, repeat.

    Of equal scores, the first in input order wins. Overlaps are computed only with the masks that are kept.

    Args:
        masks: bool (B, L, h, w).
        scores: (B, L).
        valid: bool (B, L), masks that take part.
        iou_threshold: a mask is dropped if its IoU with a kept one is larger.
        max_kept: stop after this many.

    Returns:
        Indices of kept masks by descending score, int64 (B, K), with K = min(max_kept, L); and bool (B, K), False where
        an image has fewer masks left and the index is padding.
    """
    order = torch.sort(scores, dim=1, descending=True, stable=True).indices
    flat = masks.flatten(2).float()
    area = flat.sum(2)
    alive = valid.gather(1, order)
    kept, is_kept = [], []
    for _ in range(min(max_kept, scores.shape[1])):
        rank = alive.to(torch.uint8).argmax(1, keepdim=True)  # of the best mask that is left
        is_kept.append(alive.gather(1, rank))
        best = order.gather(1, rank)
        kept.append(best)
        best_mask = flat.gather(1, best[:, :, None].expand(-1, -1, flat.shape[2]))
        intersection = torch.bmm(flat, best_mask.transpose(1, 2))[:, :, 0]
        overlaps = intersection > iou_threshold * (area + area.gather(1, best) - intersection)
        overlaps.scatter_(1, best, True)
        alive = alive & ~overlaps.gather(1, order)
    return torch.cat(kept, 1), torch.cat(is_kept, 1)


def matrix_nms(masks: Tensor, scores: Tensor, valid: Tensor, sigma: float = 2.0) -> Tensor:
    """Matrix NMS with gaussian decay (SOLOv2): each score decays by its mask's overlaps with higher-scored masks.

    Args:
        masks: bool (B, L, h, w).
        scores: (B, L), in [0, 1].
        valid: bool (B, L), masks that take part.
        sigma: strength of the decay.

    Returns:
        Decayed scores (B, L), in input order; 0 for masks that take no part.
    """
    # Masks that take no part are emptied, so that they overlap with none.
    flat = (masks.flatten(2) & valid[:, :, None]).float()
    return decay_scores(scores * valid, mask_iou(flat, flat), sigma)


def decay_scores(scores: Tensor, iou: Tensor, sigma: float = 2.0) -> Tensor:
    """The decay of `matrix_nms`, from the masks' overlaps.

    decay_j = min_i exp(-sigma * iou_ij^2) / exp(-sigma * max_iou_i^2) over all masks i of higher score, where max_iou_i
    is the largest IoU of i with a mask of higher score than its own. Of equal scores, the first counts as higher.

    Args:
        scores: (..., L), in [0, 1].
        iou: (..., L, L), symmetric; its leading dimensions may be 1.
        sigma: strength of the decay.

    Returns:
        (..., L), in input order.
    """
    higher, lower = scores[..., :, None], scores[..., None, :]
    first = torch.ones_like(iou, dtype=torch.bool).triu(diagonal=1)
    is_higher = (higher > lower) | ((higher == lower) & first)  # [i, j]: i counts as higher than j
    iou = iou * is_higher
    max_iou = iou.amax(-2)
    decay = torch.exp(-sigma * (iou**2 - max_iou[..., None] ** 2))
    return scores * torch.where(is_higher, decay, 1.0).amin(-2)
