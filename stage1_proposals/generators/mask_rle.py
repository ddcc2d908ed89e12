"""COCO run lengths of upsampled saliency masks, without making the masks.

A bilinearly upsampled map is piecewise linear along each pixel column: between two rows of cells it crosses the
threshold at most once, at a place that has a closed form. So the runs of a mask cost as much as its columns times
the rows of the *feature map*, a stride less than its pixels, and they alone leave the device.
"""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from pycocotools import mask as coco_mask
from torch import Tensor


def mask_changes(maps: Tensor, size: tuple[int, int], threshold: float) -> tuple[Tensor, Tensor]:
    """Where masks begin and end: maps bilinearly to full size (`align_corners=False`), then thresholded.

    Args:
        maps: soft masks, float32 (K, h, w).
        size: (height, width) of the image in pixels.
        threshold: a pixel is inside where its value is larger.

    Returns:
        int64 (C,) twice: the mask each change belongs to, and its pixel in column-major order (COCO's), both
        ascending. Changes alternate between entering and leaving a mask, and every mask begins outside.
    """
    (height, width), rows = size, maps.shape[1]
    step = height / rows
    columns = F.interpolate(maps.transpose(1, 2)[:, None], (width, rows), mode="bilinear", align_corners=False)[:, 0]
    # Interval j lies between the centres of cell rows j - 1 and j; beyond the outer centres the map is constant.
    # Its first pixel is ceil((j - 1/2) * step - 1/2), in whole numbers: no rounding. One without pixels is left out.
    first = [max(0, -((rows - (2 * j - 1) * height) // (2 * rows))) for j in range(rows + 1)] + [height]
    used = [j for j in range(rows + 1) if first[j + 1] > first[j]]
    interval, begin, end = maps.new_tensor([[j, first[j], first[j + 1]] for j in used]).unbind(1)
    padded = torch.cat([columns[:, :, :1], columns, columns[:, :, -1:]], 2)
    low, high = padded[:, :, :-1], padded[:, :, 1:]
    if len(used) < rows + 1:
        low, high = low[:, :, interval.long()], high[:, :, interval.long()]
    # The crossing's pixel coordinate, counted from the interval's first pixel, where float32 is exact enough.
    slope = (high - low) / step
    crossing = (threshold - low) / slope + ((interval - 0.5) * step - 0.5 - begin)
    rises = slope > 0
    pixel = torch.where(rises, crossing.floor() + 1, crossing.ceil()).clamp_min(0).minimum(end - begin)
    # A flat interval has no crossing: it is inside whole or not at all.
    pixel = torch.where(slope == 0, (low > threshold) * (end - begin), pixel)
    # Rising, the pixels from `pixel` on are inside; falling or flat, those before it.
    inside_first = (pixel > 0) ^ rises
    inside_last = (pixel == end - begin) ^ rises
    before = F.pad(inside_last.flatten(1)[:, :-1], (1, 0)).view_as(inside_last)
    changes = torch.stack([inside_first ^ before, inside_first ^ inside_last], 3).flatten().nonzero()[:, 0]
    place, at_crossing = changes // 2, changes % 2
    strip, slot = place // len(used), place % len(used)
    y = begin.long()[slot] + at_crossing * pixel.flatten()[place].long()
    return strip // width, strip % width * height + y


def encode_changes(changes: Sequence[NDArray[np.int64]], size: tuple[int, int]) -> list[bytes]:
    """COCO compressed RLE counts of masks given by their changes, as `mask_changes` gives them."""
    pixels = size[0] * size[1]
    counts = [np.diff(change, prepend=0, append=pixels) for change in changes]
    # Counts start with background and end with what is left; pycocotools writes the string.
    objects = [{"size": list(size), "counts": count.tolist()} for count in counts]
    return [rle["counts"] for rle in coco_mask.frPyObjects(objects, *size)] if objects else []


def occupied(change: NDArray[np.int64], size: tuple[int, int]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """The rows (height,) and the columns (width,) in which a mask given by its changes has a pixel."""
    height, width = size
    edges = np.pad(change, (0, len(change) % 2), constant_values=height * width)
    first, last = edges[::2], edges[1::2] - 1
    top, bottom, beyond = first % height, last % height, last // height - first // height
    # A run that goes on in a later column covers the rest of its first one, and its last one from the top.
    on = beyond > 0
    begins = np.append(top, np.zeros(on.sum(), np.int64))
    ends = np.append(np.where(on, height - 1, bottom), np.where(beyond > 1, height - 1, bottom)[on])
    return _covered(begins, ends, height), _covered(first // height, last // height, width)


def _covered(begins: NDArray[np.int64], ends: NDArray[np.int64], length: int) -> NDArray[np.bool_]:
    """Which of `length` places lie in any of the intervals, whose ends belong to them."""
    opened = np.bincount(begins, minlength=length) - np.bincount(ends + 1, minlength=length + 1)[:length]
    return opened.cumsum() > 0
