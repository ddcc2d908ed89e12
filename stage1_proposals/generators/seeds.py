"""Seed features of masks that come from elsewhere: the backbone's features averaged inside each mask."""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from pycocotools import mask as coco_mask
from torch import Tensor

from stage1_proposals.generators.base import Proposals


def cell_coverage(rle: Sequence[bytes], size: tuple[int, int], grid: tuple[int, int]) -> NDArray[np.float32]:
    """The share of each feature cell that each mask covers.

    Args:
        rle: L COCO compressed RLE counts.
        size: (height, width) of the image in pixels.
        grid: (h, w) of the feature map.

    Returns:
        (L, h, w), in [0, 1].
    """
    coverage = np.zeros((len(rle), *grid), np.float32)
    for row, counts in enumerate(rle):  # one at a time: all masks of a large image would take gigabytes
        mask = torch.from_numpy(coco_mask.decode({"size": list(size), "counts": counts}))
        coverage[row] = F.adaptive_avg_pool2d(mask[None].float(), grid)[0].numpy()
    return coverage


def pool_proposals(
    features: Tensor, rle: Sequence[bytes], scores: NDArray[np.float32], size: tuple[int, int]
) -> Proposals:
    """Proposals of given masks: seed feature and seed centre are the averages inside the mask.

    Args:
        features: X of the image, (D, h, w).
        rle: L masks, none of them empty.
        scores: (L,).
        size: (height, width) of the image in pixels.

    Returns:
        Their features are L2-normalised, as the saliency generator's are with cosine similarity.
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
