"""Edges of soft masks that follow the image: a guided filter (He et al., ECCV 2010), on the device."""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

FINER = 4  # grid points along a side of a feature cell
RADIUS = 2  # of the filter's window, in grid points: half a cell
SMOOTHNESS = 1e-4  # variance of grey values in [0, 1] above which an edge of the image counts
MARGIN = 2  # cells around a region that are filtered with it

Window = tuple[int, int, int, int]


def grey_guide(pixels: Tensor, grid: tuple[int, int]) -> Tensor:
    """The image on the finer grid, as grey values in [0, 1].

    Args:
        pixels: RGB (3, H, W), 0-255.
        grid: (h, w) of the feature map.

    Returns:
        float32 (FINER * h, FINER * w).
    """
    grey = pixels.float().mean(0, keepdim=True) / 255
    return F.adaptive_avg_pool2d(grey, (FINER * grid[0], FINER * grid[1]))[0]


def windows_around(regions: NDArray[np.bool_]) -> list[Window]:
    """Top, left, bottom and right, without the last two, of each region (K, h, w) and a margin, in cells."""
    found = []
    for region in regions:
        spans = []
        for axis in (1, 0):
            inside = np.flatnonzero(region.any(axis))
            spans.append((max(inside[0] - MARGIN, 0), min(inside[-1] + 1 + MARGIN, region.shape[1 - axis])))
        (top, bottom), (left, right) = spans
        found.append((int(top), int(left), int(bottom), int(right)))
    return found


def follow_image(maps: Tensor, windows: Sequence[Window], guide: Tensor) -> Tensor:
    """Soft masks on the finer grid whose edges are those of the image nearby.

    Args:
        maps: soft masks (K, h, w).
        windows: of each, from `windows_around`; outside of it a map counts as 0.
        guide: see `grey_guide`.

    Returns:
        (K, FINER * h, FINER * w).
    """
    refined = guide.new_zeros(len(maps), *guide.shape)
    for soft, fine, (top, left, bottom, right) in zip(maps, refined, windows, strict=True):
        part = slice(FINER * top, FINER * bottom), slice(FINER * left, FINER * right)
        upsampled = F.interpolate(soft[None, None, top:bottom, left:right], scale_factor=FINER, mode="bilinear")
        fine[part] = guided_filter(upsampled[0, 0], guide[part])
    return refined


def guided_filter(soft: Tensor, guide: Tensor) -> Tensor:
    """The linear function of the guide that is nearest to `soft` in each window, the mean over a point's windows.

    Args:
        soft, guide: (H, W).
    """
    points = _window_sums(torch.ones_like(guide)[None])
    sums = _window_sums(torch.stack([soft, guide, soft * guide, guide * guide]))
    mean_soft, mean_guide, product, square = sums / points
    slope = (product - mean_soft * mean_guide) / (square - mean_guide**2 + SMOOTHNESS)
    slope, intercept = _window_sums(torch.stack([slope, mean_soft - slope * mean_guide])) / points
    return slope * guide + intercept


def _window_sums(values: Tensor) -> Tensor:
    """Sums of (C, H, W) over the window around each point: one direction after the other, faster than pooling."""
    _, height, width = values.shape
    padded, shifts = F.pad(values, (RADIUS,) * 4), range(2 * RADIUS + 1)
    rows = torch.stack([padded[:, shift : shift + height] for shift in shifts]).sum(0)
    return torch.stack([rows[:, :, shift : shift + width] for shift in shifts]).sum(0)
