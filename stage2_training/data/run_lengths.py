"""Masks as strips, straight from COCO's run lengths: what some rows and columns of a mask show, without making it.

A mask's run lengths go down its columns. A *strip* is the part of a run that lies in one column. Resizing to the
nearest pixel, flipping and padding only pick rows and columns of a mask, so that a transformed mask is given by two
index arrays: for each of its rows, which of the mask's it is, -1 for padding, and likewise for columns. Such an array
rises or falls, apart from the padding at its ends.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from stage1_proposals.shards.run_lengths import read_changes, repeated

Ints = NDArray[np.int64]
Index = NDArray[np.int32]


class Strips(NamedTuple):
    """S strips, in the order of masks; strip s covers rows `top[s]` to `bottom[s] - 1` of a column."""

    mask: Ints  # (S,)
    column: Ints  # (S,)
    top: Ints  # (S,)
    bottom: Ints  # (S,)


def strips(rle: Sequence[bytes], size: tuple[int, int]) -> Strips:
    """The strips of L masks of `size` (height, width), from their COCO compressed run lengths."""
    height = size[0]
    mask, pixel = read_changes(rle, size)
    start, end = pixel[::2], pixel[1::2]
    first = start // height
    run, place = repeated(np.where(end > start, (end - 1) // height - first + 1, 0))
    column = first[run] + place
    top = np.maximum(start[run] - column * height, 0)
    return Strips(mask[::2][run], column, top, np.minimum(end[run] - column * height, height))


def areas(of: Strips, count: int, size: tuple[int, int], rows: Index, columns: Index) -> Ints:
    """Pixels of `count` masks, given by strips at `size`, once transformed: int64 (count,).

    Args:
        rows, columns: index arrays of the transformed masks, see above.
    """
    across, down = _places(columns, size[1]), _places(rows, size[0])
    pixels = abs(across[of.column + 1] - across[of.column]) * abs(down[of.bottom] - down[of.top])
    return np.bincount(of.mask, pixels, count).astype(np.int64)


def middle_means(
    of: Strips, count: int, size: tuple[int, int], rows: Index, columns: Index, device: torch.device | str
) -> Tensor:
    """Mean over two rows and two columns each, of `count` masks given by strips at `size`: float32 (count, h, w).

    Only the changes along columns are written, and then added up: the masks are not made at any other size.

    Args:
        rows: index array (2 h) of the transformed masks' rows that are wanted, by twos.
        columns: index array (2 w), likewise.
    """
    height, width = len(rows) // 2, len(columns) // 2
    across, down = _places(columns, size[1]), _places(rows, size[0])
    left = np.minimum(across[of.column], across[of.column + 1])
    begin, end = np.minimum(down[of.top], down[of.bottom]), np.maximum(down[of.top], down[of.bottom])
    times = np.where(end > begin, abs(across[of.column + 1] - across[of.column]), 0)
    strip, place = repeated(times)
    corner = of.mask[strip] * ((height + 1) * width) + (left[strip] + place) // 2
    # Wanted row r counts half for mean r // 2. From row `begin` on, half of a strip is in mean begin // 2 and all of it
    # in the next one where begin is odd, and in begin // 2 both times where it is even.
    begin, end = begin[strip], end[strip]
    changes = torch.from_numpy(
        np.stack([corner + row * width for row in (begin // 2, (begin + 1) // 2, end // 2, (end + 1) // 2)])
    ).to(device)
    means = torch.zeros(count * (height + 1) * width, device=device)
    means.index_add_(0, changes[:2].flatten(), means.new_full((1,), 0.25).expand(changes[:2].numel()))
    means.index_add_(0, changes[2:].flatten(), means.new_full((1,), -0.25).expand(changes[2:].numel()))
    return means.view(count, height + 1, width).cumsum_(1)[:, :height]


def _places(index: Index, size: int) -> Ints:
    """For each of `size` + 1 borders between a mask's rows, which of the transformed mask's it falls on: (size + 1,).

    Row y takes up the transformed rows between `places[y]` and `places[y + 1]`, whichever is lower.
    """
    there = np.flatnonzero(index >= 0)
    if len(there) == 0:
        return np.zeros(size + 1, np.int64)
    used = index[there[0] : there[-1] + 1]
    falls = used[0] > used[-1]
    before = np.searchsorted(used[::-1] if falls else used, np.arange(size + 1))
    return there[0] + (len(used) - before if falls else before)
