"""Instance masks that stay run lengths until somebody needs pixels, and then are made at the size needed."""

from collections.abc import Sequence
from copy import copy
from functools import cached_property
from typing import Any, NamedTuple

import cv2
import mmcv
import numpy as np
import torch
import torch.nn.functional as F
from mmdet.structures.mask import BaseInstanceMasks, BitmapMasks
from numpy.typing import NDArray
from torch import Tensor

from stage1_proposals.shards.rle import decode, read_changes, repeated

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


class RunLengthMasks(BitmapMasks):
    """MMDetection's bitmap masks, kept as COCO's run lengths of the whole image.

    Resizing to the nearest pixel, flipping and padding with zeros only pick rows and columns of a mask, and are noted.
    `at` and `areas` are computed from run lengths. Whatever else MMDetection asks for (`masks`, `to_tensor`,
    `crop_and_resize`, `rotate`, ...) is done on bitmaps, which are made when first asked for and are those that there
    would have been from the start.

    Args:
        rle: compressed counts of L masks.
        size: (height, width) of the masks.

    Attributes:
        height, width: now, after the transforms noted.
        rows: int32 (height,), the original row of each row, -1 for padding.
        columns: int32 (width,), likewise.
    """

    def __init__(self, rle: Sequence[bytes], size: tuple[int, int]) -> None:
        self.rle = list(rle)
        self.size = size
        self.rows, self.columns = (np.arange(length, dtype=np.int32) for length in size)
        self.height, self.width = size

    def __getstate__(self) -> dict[str, Any]:
        """Without bitmaps; strips travel along, so that the trainer's process need not make them again."""
        return {name: value for name, value in self.__dict__.items() if name != "masks"}

    def __len__(self) -> int:
        return len(self.rle)

    def __getitem__(self, index: Any) -> "RunLengthMasks":
        """The masks of an index, slice, list or (boolean) array, always as masks."""
        chosen = RunLengthMasks([self.rle[i] for i in np.atleast_1d(np.arange(len(self))[index])], self.size)
        return chosen._picking(self.rows, self.columns)

    @cached_property
    def masks(self) -> NDArray[np.uint8]:
        """The bitmaps: uint8 (L, height, width), 0 or 1."""
        found = np.zeros((len(self), self.height, self.width), np.uint8)
        if len(self):
            for bitmap, transposed in zip(found, decode(self.rle, self.size).transpose(0, 2, 1), strict=True):
                # Whole columns are copied, then whole rows.
                cv2.transpose(transposed[self.columns]).take(self.rows, axis=0, out=bitmap)
            found[:, self.rows < 0] = 0
            found[:, :, self.columns < 0] = 0
        return found

    @cached_property
    def strips(self) -> Strips:
        """The masks' strips at their original size."""
        return strips(self.rle, self.size)

    @property
    def areas(self) -> NDArray[np.int64]:
        """Pixels of each mask: int64 (L,)."""
        return areas(self.strips, len(self), self.size, self.rows, self.columns)

    def at(self, size: tuple[int, int], device: torch.device | str = "cpu") -> Tensor:
        """The masks bilinearly resized to `size` (h, w), as `masks_at` does it: float32 (L, h, w).

        Where height and width are an even number of times those wanted, each value is the mean of the four middle
        pixels of its block, and comes from run lengths; else from bitmaps.
        """
        if not len(self) or self.height % (2 * size[0]) or self.width % (2 * size[1]):
            return _bilinear(self, size, device)
        rows, columns = (
            index.reshape(length, -1)[:, len(index) // length // 2 - 1 :][:, :2].flatten()
            for index, length in zip((self.rows, self.columns), size, strict=True)
        )
        return middle_means(self.strips, len(self), self.size, rows, columns, device)

    def to_bitmaps(self) -> BitmapMasks:
        """The same masks as MMDetection's own bitmaps."""
        return BitmapMasks(self.masks, self.height, self.width)

    def rescale(self, scale: Any, interpolation: str = "nearest") -> BitmapMasks:
        """See `BaseInstanceMasks.rescale`."""
        width, height = mmcv.rescale_size((self.width, self.height), scale)
        return self.resize((height, width), interpolation)

    def resize(self, out_shape: tuple[int, int], interpolation: str = "nearest") -> BitmapMasks:
        """See `BaseInstanceMasks.resize`."""
        if interpolation != "nearest":
            return super().resize(out_shape, interpolation)
        return self._picking(_nearest(self.rows, out_shape[0]), _nearest(self.columns, out_shape[1]))

    def flip(self, flip_direction: str = "horizontal") -> "RunLengthMasks":
        """See `BaseInstanceMasks.flip`."""
        up_down, left_right = flip_direction != "horizontal", flip_direction != "vertical"
        return self._picking(
            self.rows[::-1].copy() if up_down else self.rows, self.columns[::-1].copy() if left_right else self.columns
        )

    def pad(self, out_shape: tuple[int, int], pad_val: int = 0) -> BitmapMasks:
        """See `BaseInstanceMasks.pad`."""
        if pad_val:
            return super().pad(out_shape, pad_val)
        below, right = out_shape[0] - self.height, out_shape[1] - self.width
        return self._picking(
            np.pad(self.rows, (0, below), constant_values=-1), np.pad(self.columns, (0, right), constant_values=-1)
        )

    @classmethod
    def cat(cls, masks: Sequence[BitmapMasks]) -> BitmapMasks:
        """See `BaseInstanceMasks.cat`; gives bitmaps."""
        return BitmapMasks.cat(masks)

    def _picking(self, rows: NDArray[np.int32], columns: NDArray[np.int32]) -> "RunLengthMasks":
        picked = copy(self)
        picked.rows, picked.columns = rows, columns
        picked.height, picked.width = len(rows), len(columns)
        return picked


def masks_at(masks: BaseInstanceMasks, size: tuple[int, int], device: torch.device | str = "cpu") -> Tensor:
    """L masks of any kind, bilinearly resized (no `align_corners`) to `size` (h, w): float32 (L, h, w), in [0, 1]."""
    return masks.at(size, device) if isinstance(masks, RunLengthMasks) else _bilinear(masks, size, device)


def _bilinear(masks: BaseInstanceMasks, size: tuple[int, int], device: torch.device | str) -> Tensor:
    if not len(masks):
        return torch.zeros(0, *size, device=device)
    bitmaps = masks.to_tensor(torch.uint8, device)[None].float()
    return F.interpolate(bitmaps, size=size, mode="bilinear", align_corners=False)[0]


def _nearest(index: NDArray[np.int32], length: int) -> NDArray[np.int32]:
    """An index array resized as MMDetection resizes bitmaps."""
    return mmcv.imresize(index[:, None], (1, length), interpolation="nearest", backend="cv2")[:, 0]
