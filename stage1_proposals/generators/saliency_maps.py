"""Saliency maps (Sec. 3.2, Eq. 3-4) as pure functions over tensors.

Shapes: B images, D feature channels, h x w cells of the feature map, L seeds.
"""

from typing import Literal

import torch
from torch import Tensor

Similarity = Literal["cosine", "dot"]
EPSILON = 1e-12  # least product of norms: avoids division by zero for an all-zero cell


def saliency_maps(features: Tensor, seeds: Tensor, similarity: Similarity) -> Tensor:
    """Y_l = conv(S_l, X) (Eq. 3): each seed feature is the weight of a 1x1 convolution over the feature map.

    Args:
        features: X, (B, D, h, w).
        seeds: S, (B, L, D).
        similarity: `cosine`, as if seeds and features were L2-normalised over channels, or `dot`, Eq. 3 to the letter.

    Returns:
        (B, L, h, w).
    """
    maps = torch.bmm(seeds, features.flatten(2))
    if similarity == "cosine":  # dividing the maps is cheaper than copying all features to normalise them
        maps /= (seeds.norm(dim=2)[:, :, None] * features.flatten(2).norm(dim=1)[:, None, :]).clamp_min(EPSILON)
    return maps.unflatten(2, features.shape[2:])


def normalise(maps: Tensor) -> Tensor:
    """Norm of Eq. 4: scale each map linearly to [0, 1]; a constant map becomes 0.

    Args:
        maps: (..., h, w).
    """
    low = maps.amin((-2, -1), keepdim=True)
    high = maps.amax((-2, -1), keepdim=True)
    return (maps - low) / (high - low).clamp_min(torch.finfo(maps.dtype).tiny)


def mask_scores(maps: Tensor, masks: Tensor) -> Tensor:
    """The score of each mask: the mean normalised saliency inside it; 0 for an empty mask.

    Args:
        maps: normalised saliency (..., h, w).
        masks: bool (..., h, w).

    Returns:
        (...,), in [0, 1].
    """
    inside = masks.sum((-2, -1))
    return (maps * masks).sum((-2, -1)) / inside.clamp_min(1)
