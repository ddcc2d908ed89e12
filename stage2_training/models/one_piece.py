"""Masks in one piece, where objects are: a mask that runs over several objects keeps the largest part."""

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def largest_pieces(masks: Tensor) -> Tensor:
    """Of each mask the largest connected part; pixels that touch at a corner are connected.

    One mask for one object is what matching teaches a query in many epochs. After few, its mask often covers parts of
    several objects that look alike.

    Args:
        masks: bool (R, H, W). They are copied to the CPU.

    Returns:
        bool (R, H, W), on the masks' device. An empty mask stays empty.
    """
    kept = masks.cpu().numpy().astype(np.uint8)
    for mask in kept:
        _keep_largest(mask)
    return torch.from_numpy(kept).bool().to(masks.device)


def _keep_largest(mask: NDArray[np.uint8]) -> None:
    part = _around(mask)
    if part.size:
        count, pieces, statistics, _ = cv2.connectedComponentsWithStats(part, connectivity=8)
        if count > 2:  # the background is one
            part[pieces != 1 + statistics[1:, cv2.CC_STAT_AREA].argmax()] = 0


def count_pieces(mask: NDArray[np.uint8]) -> int:
    """The number of connected parts of a mask (H, W), 0 or 1."""
    part = _around(mask)
    return cv2.connectedComponents(part, connectivity=8)[0] - 1 if part.size else 0


def _around(mask: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The mask's part inside its tight box, a view: labelling takes time by the pixel."""
    x, y, width, height = cv2.boundingRect(mask)
    return mask[y : y + height, x : x + width]
