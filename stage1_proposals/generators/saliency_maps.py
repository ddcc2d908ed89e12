"""Saliency maps (Sec. 3.2, Eq. 3-4) as pure functions over tensors.

Shapes: B images, D feature channels, h x w cells of the feature map, L seeds.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

SIMILARITIES = ("cosine", "dot")
EPSILON = 1e-12  # of a product of norms: a cell without features is like nothing


def seed_grids(height: int, width: int, scales: Sequence[float]) -> list[tuple[int, int]]:
    """Seed grid sizes: the feature map's own size times each scale, at least 1 x 1, no size twice."""
    sizes = [(max(1, round(height * scale)), max(1, round(width * scale))) for scale in scales]
    return list(dict.fromkeys(sizes))


def pool_seeds(features: Tensor, grids: Sequence[tuple[int, int]]) -> tuple[Tensor, Tensor]:
    """Seed features S by average pooling X to each grid (Sec. 3.2).

    Args:
        features: X, (B, D, h, w).
        grids: (rows, columns) of each grid.

    Returns:
        seeds (B, L, D), and their centres (L, 2) as (y, x) in [0, 1] of height and width; L is the sum over grids.
    """
    seeds, centres = [], []
    for rows, columns in grids:
        pooled = features if (rows, columns) == features.shape[2:] else F.adaptive_avg_pool2d(features, (rows, columns))
        seeds.append(pooled.flatten(2))
        y = (torch.arange(rows, device=features.device) + 0.5) / rows
        x = (torch.arange(columns, device=features.device) + 0.5) / columns
        centres.append(torch.cartesian_prod(y, x))
    return torch.cat(seeds, 2).transpose(1, 2), torch.cat(centres)


def saliency_maps(features: Tensor, seeds: Tensor, similarity: str) -> Tensor:
    """Y_l = conv(S_l, X) (Eq. 3): each seed feature as a 1x1 convolution weight.

    Args:
        features: X, (B, D, h, w).
        seeds: S, (B, L, D).
        similarity: `cosine`, as if both were L2-normalised over channels, or `dot`, Eq. 3 to the letter.

    Returns:
        (B, L, h, w).
    """
    maps = torch.bmm(seeds, features.flatten(2))
    if similarity == "cosine":  # dividing the few maps is cheaper than making normalised copies of all features
        maps /= (seeds.norm(dim=2)[:, :, None] * features.flatten(2).norm(dim=1)[:, None, :]).clamp_min(EPSILON)
    return maps.unflatten(2, features.shape[2:])


def normalise(maps: Tensor) -> Tensor:
    """Norm of Eq. 4: each map linearly to [0, 1]; a constant map becomes 0.

    Args:
        maps: (..., h, w).
    """
    low = maps.amin((-2, -1), keepdim=True)
    high = maps.amax((-2, -1), keepdim=True)
    return (maps - low) / (high - low).clamp_min(torch.finfo(maps.dtype).tiny)


def mask_scores(maps: Tensor, masks: Tensor) -> Tensor:
    """Mean normalised saliency inside each mask; 0 for an empty mask.

    Args:
        maps: normalised saliency (..., h, w).
        masks: bool (..., h, w).

    Returns:
        (...,), in [0, 1].
    """
    inside = masks.sum((-2, -1))
    return (maps * masks).sum((-2, -1)) / inside.clamp_min(1)
