"""COCO run lengths of upsampled saliency masks, computed without making the masks.

A bilinearly upsampled map is piecewise linear along each pixel column: between two rows of cells it crosses the
threshold at most once, at a position with a closed form. So the cost of a mask is its width times the number of rows of
the *feature map*, which is less than its pixels by the backbone's stride, and only run lengths leave the device.
"""

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from pycocotools import mask as coco_mask
from torch import Tensor


def mask_changes(maps: Tensor, size: tuple[int, int], threshold: float) -> tuple[Tensor, Tensor]:
    """The pixels at which full-size masks begin and end: bilinear upsampling (`align_corners=False`), then threshold.

    Args:
        maps: soft masks, float32 (K, h, w).
        size: (height, width) of the image in pixels.
        threshold: pixels with larger values are inside.

    Returns:
        Two int64 arrays (C,), both ascending: the mask of each change, and its pixel in column-major order (COCO's).
        Changes alternate between entering and leaving a mask; every mask starts outside.
    """
    (height, width), rows = size, maps.shape[1]
    step = height / rows
    columns = F.interpolate(maps.transpose(1, 2)[:, None], (width, rows), mode="bilinear", align_corners=False)[:, 0]
    # Only columns with pixels inside, and those after them, have changes: of a small object, few.
    has_pixels = columns.amax(2) > threshold
    strip = (has_pixels | F.pad(has_pixels[:, :-1], (1, 0))).flatten().nonzero()[:, 0]
    columns = columns.flatten(0, 1)[strip]
    # Interval j lies between the centres of cell rows j - 1 and j; beyond the outer centres the map is constant.
    # Its first pixel is ceil((j - 1/2) * step - 1/2), computed with integers to avoid rounding. Intervals without
    # pixels are left out.
    first = [max(0, -((rows - (2 * j - 1) * height) // (2 * rows))) for j in range(rows + 1)] + [height]
    used = [j for j in range(rows + 1) if first[j + 1] > first[j]]
    interval, begin, end = maps.new_tensor([[j, first[j], first[j + 1]] for j in used]).unbind(1)
    padded = torch.cat([columns[:, :1], columns, columns[:, -1:]], 1)
    low, high = padded[:, :-1], padded[:, 1:]
    if len(used) < rows + 1:
        low, high = low[:, interval.long()], high[:, interval.long()]
    # The crossing's pixel coordinate, relative to the interval's first pixel, where float32 is precise enough.
    slope = (high - low) / step
    crossing = (threshold - low) / slope + ((interval - 0.5) * step - 0.5 - begin)
    rises = slope > 0
    pixel = torch.where(rises, crossing.floor() + 1, crossing.ceil()).clamp_min(0).minimum(end - begin)
    # A flat interval has no crossing: all or none of it is inside.
    pixel = torch.where(slope == 0, (low > threshold) * (end - begin), pixel)
    # Where the map rises, the pixels from `pixel` on are inside; where it falls or is flat, those before it.
    inside_first = (pixel > 0) ^ rises
    inside_last = (pixel == end - begin) ^ rises
    follows = (strip % width > 0) & (strip == F.pad(strip[:-1] + 1, (1, 0)))  # the column before, of the same mask
    before = F.pad(inside_last[:, :-1], (1, 0))
    before[1:, 0] = inside_last[:-1, -1] & follows[1:]
    changes = torch.stack([inside_first ^ before, inside_first ^ inside_last], 2).flatten().nonzero()[:, 0]
    flat_index, at_crossing = changes // 2, changes % 2
    strip, slot = strip[flat_index // len(used)], flat_index % len(used)
    y = begin.long()[slot] + at_crossing * pixel.flatten()[flat_index].long()
    return strip // width, strip % width * height + y


def batch_mask_changes(
    maps: Tensor, sizes: Sequence[tuple[int, int]], threshold: float
) -> list[list[NDArray[np.int64]]]:
    """The changes of each image's masks at full size, see `mask_changes`.

    Args:
        maps: soft masks, float32 (B, K, h, w).
        sizes: (height, width) of each image in pixels.
        threshold: pixels with larger values are inside.

    Returns:
        For each image and each of its masks, the mask's changes, int64 (C,).
    """
    rows_by_size = defaultdict(list)  # images of equal size are processed together
    for row, size in enumerate(sizes):
        rows_by_size[size].append(row)
    changes: dict[int, list[NDArray[np.int64]]] = {}
    count = maps.shape[1]
    for size, rows in rows_by_size.items():
        mask, pixel = mask_changes(maps[rows].flatten(0, 1), size, threshold)
        bounds = np.searchsorted(mask.cpu().numpy(), np.arange(1, len(rows) * count))
        per_mask = np.split(pixel.cpu().numpy(), bounds)
        for group_row, row in enumerate(rows):
            changes[row] = per_mask[group_row * count : (group_row + 1) * count]
    return [changes[row] for row in range(len(sizes))]


def encode_changes(changes: Sequence[NDArray[np.int64]], size: tuple[int, int]) -> list[bytes]:
    """COCO compressed RLE counts of masks, given the changes of each, as `batch_mask_changes` returns them."""
    pixels = size[0] * size[1]
    counts = [np.diff(change, prepend=0, append=pixels) for change in changes]
    # The first run is outside the mask, and the last ends at the last pixel.
    objects = [{"size": list(size), "counts": count.tolist()} for count in counts]
    return [rle["counts"] for rle in coco_mask.frPyObjects(objects, *size)] if objects else []


def occupied(change: NDArray[np.int64], size: tuple[int, int]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """The rows, bool (height,), and columns, bool (width,), in which a mask has pixels, given its changes."""
    height, width = size
    edges = np.pad(change, (0, len(change) % 2), constant_values=height * width)
    first, last = edges[::2], edges[1::2] - 1
    top, bottom, beyond = first % height, last % height, last // height - first // height
    # A run that continues into later columns covers its first column to the end, and its last one from the top.
    continues = beyond > 0
    begins = np.append(top, np.zeros(continues.sum(), np.int64))
    ends = np.append(np.where(continues, height - 1, bottom), np.where(beyond > 1, height - 1, bottom)[continues])
    return _covered(begins, ends, height), _covered(first // height, last // height, width)


def _covered(begins: NDArray[np.int64], ends: NDArray[np.int64], length: int) -> NDArray[np.bool_]:
    """Which of `length` positions lie in any of the intervals [begin, end], ends included."""
    opened = np.bincount(begins, minlength=length) - np.bincount(ends + 1, minlength=length + 1)[:length]
    return opened.cumsum() > 0
