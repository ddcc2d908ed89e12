"""Features of large images, computed tile by tile: neither memory nor a ViT's time per pixel grows with the image."""

from collections.abc import Iterator
from itertools import product
from math import ceil

import torch
from torch import Tensor

from stage1_proposals.backbones.extractor import FeatureExtractor

OVERLAP = 0.25  # of neighbouring tiles, at least, as a fraction of a tile


def tile_starts(length: int, tile: int, step: int) -> list[int]:
    """First pixels of the fewest tiles that cover a side and overlap enough, all multiples of `step`.

    Args:
        length: of the side, a multiple of `step`.
        tile: of a tile, a multiple of `step`, at most `length`.
    """
    gaps = max(ceil((length - tile) / ((1 - OVERLAP) * tile)), 1)
    starts = [step * round(index * (length - tile) / gaps / step) for index in range(gaps + 1)]
    return list(dict.fromkeys(starts))  # of a tile of one step, or of one tile, several are the same


def tile_size(size: tuple[int, int], tile: int | None, step: int) -> tuple[int, int]:
    """Height and width of the tiles of an input of `size`: at most `tile`, in whole steps; the input's without one."""
    height, width = size
    side = max(height, width) if tile is None else max(1, tile // step) * step
    return min(height, side), min(width, side)


def tiles(size: tuple[int, int], tile: int | None, step: int) -> Iterator[tuple[int, int]]:
    """Top and left of each tile of an input of `size` (height, width), row by row."""
    rows, columns = (
        tile_starts(length, part, step) for length, part in zip(size, tile_size(size, tile, step), strict=True)
    )
    yield from product(rows, columns)


@torch.inference_mode()
def tiled_features(extractor: FeatureExtractor, images: Tensor, tile: int | None) -> Tensor:
    """Features of images, joined from those of overlapping tiles.

    Where tiles overlap, the mean is taken; a tile counts less towards its edges, where it lacks a part of what lies
    around.

    Args:
        images: RGB (B, 3, H, W), 0-255; H and W are multiples of the backbone's `input_step`.
        tile: longest side of a tile in pixels; None: no tiles.

    Returns:
        float32 (B, D, H / stride, W / stride).
    """
    step, stride = extractor.spec.input_step, extractor.spec.stride
    size = images.shape[2], images.shape[3]
    height, width = tile_size(size, tile, step)
    if (height, width) == size:
        features: Tensor = extractor(images)
        return features
    rows, columns = height // stride, width // stride
    weight = (_ramp(rows)[:, None] * _ramp(columns)).to(images.device)
    cells_of_all = (side // stride for side in size)
    total = torch.zeros(len(images), extractor.spec.feature_dim, *cells_of_all, device=images.device)
    weights = total.new_zeros(total.shape[2:])
    for top, left in tiles(size, tile, step):
        part = extractor(images[:, :, top : top + height, left : left + width])
        cells = slice(top // stride, top // stride + rows), slice(left // stride, left // stride + columns)
        total[:, :, *cells] += part * weight
        weights[cells] += weight
    return total.div_(weights)


def _ramp(length: int) -> Tensor:
    """1, 2, ... towards the middle of a side of `length` cells."""
    index = torch.arange(length, dtype=torch.float32)
    return torch.minimum(index + 1, length - index)
