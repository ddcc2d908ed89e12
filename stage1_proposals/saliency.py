"""Saliency masks (Sec. 3.2, Eq. 3-4) as pure functions over tensors.

Shapes: D feature channels, h x w cells of the feature map, L seeds.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

SIMILARITIES = ("cosine", "dot")


def seed_grids(height: int, width: int, scales: Sequence[float]) -> list[tuple[int, int]]:
    """Seed grid sizes: the feature map's own size times each scale, at least 1 x 1, no size twice."""
    sizes = [(max(1, round(height * scale)), max(1, round(width * scale))) for scale in scales]
    return list(dict.fromkeys(sizes))


def pool_seeds(features: Tensor, grids: Sequence[tuple[int, int]]) -> tuple[Tensor, Tensor]:
    """Seed features S by average pooling X to each grid (Sec. 3.2).

    Args:
        features: X, (D, h, w).
        grids: (rows, columns) of each grid.

    Returns:
        seeds (L, D), and their centres (L, 2) as (y, x) in [0, 1] of height and width; L is the sum over grids.
    """
    seeds, centres = [], []
    for rows, columns in grids:
        pooled = F.adaptive_avg_pool2d(features, (rows, columns))
        seeds.append(pooled.flatten(1).T)
        y = (torch.arange(rows, device=features.device) + 0.5) / rows
        x = (torch.arange(columns, device=features.device) + 0.5) / columns
        centres.append(torch.cartesian_prod(y, x))
    return torch.cat(seeds), torch.cat(centres)


def saliency_maps(features: Tensor, seeds: Tensor) -> Tensor:
    """Y_l = conv(S_l, X) (Eq. 3): each seed feature as a 1x1 convolution weight.

    For cosine similarity both come L2-normalised over channels.

    Args:
        features: X, (D, h, w).
        seeds: S, (L, D).

    Returns:
        (L, h, w).
    """
    return torch.einsum("ld,dhw->lhw", seeds, features)


def normalise(maps: Tensor) -> Tensor:
    """Norm of Eq. 4: each map linearly to [0, 1]; a constant map becomes 0.

    Args:
        maps: (L, h, w).
    """
    low = maps.amin((-2, -1), keepdim=True)
    high = maps.amax((-2, -1), keepdim=True)
    return (maps - low) / (high - low).clamp_min(torch.finfo(maps.dtype).tiny)


def mask_scores(maps: Tensor, masks: Tensor) -> Tensor:
    """Mean normalised saliency inside each mask; 0 for an empty mask.

    Args:
        maps: normalised saliency (L, h, w).
        masks: bool (L, h, w).

    Returns:
        (L,), in [0, 1].
    """
    inside = masks.sum((-2, -1))
    return (maps * masks).sum((-2, -1)) / inside.clamp_min(1)


def upsample_masks(maps: Tensor, size: tuple[int, int], threshold: float) -> Tensor:
    """Soft maps bilinearly to full image size, then thresholded.

    Args:
        maps: normalised saliency (L, h, w).
        size: (height, width) in pixels.

    Returns:
        bool (L, height, width).
    """
    if not len(maps):
        return torch.zeros((0, *size), dtype=torch.bool, device=maps.device)
    # One soft map at a time: all of them at the size of a large photo would take gigabytes.
    return torch.stack(
        [F.interpolate(soft[None, None], size, mode="bilinear", align_corners=False)[0, 0] > threshold for soft in maps]
    )
