"""Seed features: the feature map pooled to seed grids (Sec. 3.2), or averaged inside masks that are given."""

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from pycocotools import mask as coco_mask
from torch import Tensor

from stage1_proposals.common.masks import rle_objects
from stage1_proposals.generators.base import Proposals

Pooling = Literal["average", "bilinear"]


def seed_grids(height: int, width: int, scales: Sequence[float]) -> list[tuple[int, int]]:
    """Seed grid sizes (rows, columns): the feature map's size times each scale, at least 1 x 1, without duplicates."""
    sizes = [(max(1, round(height * scale)), max(1, round(width * scale))) for scale in scales]
    return list(dict.fromkeys(sizes))


def cell_centres(rows: int, columns: int, device: torch.device) -> Tensor:
    """Centres of a grid's cells, row by row, as (y, x) in [0, 1] of height and width; (rows * columns, 2)."""
    y = (torch.arange(rows, device=device) + 0.5) / rows
    x = (torch.arange(columns, device=device) + 0.5) / columns
    return torch.cartesian_prod(y, x)


def pool_seeds(
    features: Tensor, grids: Sequence[tuple[int, int]], pooling: Pooling = "average"
) -> tuple[Tensor, Tensor]:
    """Seed features S: X pooled to each grid (Sec. 3.2).

    Args:
        features: X, (B, D, h, w).
        grids: (rows, columns) of each grid.
        pooling: `average` over the cells that a seed covers, or `bilinear` interpolation at its centre.

    Returns:
        Seeds (B, L, D) and their centres (L, 2) as (y, x), in [0, 1] of height and width. L counts the cells of all
        grids.
    """
    seeds, centres = [], []
    for rows, columns in grids:
        if (rows, columns) == features.shape[2:]:
            pooled = features
        elif pooling == "average":
            pooled = F.adaptive_avg_pool2d(features, (rows, columns))
        else:
            pooled = F.interpolate(features, (rows, columns), mode="bilinear", align_corners=False)
        seeds.append(pooled.flatten(2))
        centres.append(cell_centres(rows, columns, features.device))
    return torch.cat(seeds, 2).transpose(1, 2), torch.cat(centres)


def cell_coverage(rle: Sequence[bytes], size: tuple[int, int], grid: tuple[int, int]) -> NDArray[np.float32]:
    """The fraction of each feature cell that each mask covers.

    Args:
        rle: L COCO compressed RLE counts.
        size: (height, width) of the image in pixels.
        grid: (h, w) of the feature map.

    Returns:
        (L, h, w), in [0, 1].
    """
    coverage = np.zeros((len(rle), *grid), np.float32)
    for row, one in enumerate(rle_objects(rle, size)):  # all masks of a large image at once could take gigabytes
        mask = torch.from_numpy(coco_mask.decode(one))
        coverage[row] = F.adaptive_avg_pool2d(mask[None].float(), grid)[0].numpy()
    return coverage


def pool_proposals(
    features: Tensor, rle: Sequence[bytes], scores: NDArray[np.float32], size: tuple[int, int]
) -> Proposals:
    """Turn given masks into proposals: seed feature and seed centre are averages over the mask.

    Args:
        features: X of the image, (D, h, w).
        rle: COCO compressed RLE counts of L masks, none of them empty.
        scores: (L,).
        size: (height, width) of the image in pixels.

    Returns:
        Proposals whose features are L2-normalised, as the saliency generator's are with cosine similarity.
    """
    if not rle:
        return Proposals([], np.zeros(0, np.float32), np.zeros((0, 2), np.float32), np.zeros((0, len(features)), "f2"))
    rows, columns = features.shape[1:]
    weights = cell_coverage(rle, size, (rows, columns)).reshape(len(rle), -1)
    weights /= weights.sum(1, keepdims=True)
    pooled = torch.from_numpy(weights).to(features) @ features.flatten(1).T
    y, x = (np.indices((rows, columns)).reshape(2, -1) + 0.5) / [[rows], [columns]]
    return Proposals(
        rle,
        scores,
        np.stack([weights @ y, weights @ x], 1).astype(np.float32),
        F.normalize(pooled).half().cpu().numpy(),
    )
