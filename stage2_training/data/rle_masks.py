"""Instance masks kept as run-length encodings (RLE) until pixels are needed, and decoded at the size needed.

Resizing to the nearest pixel, flipping and padding with zeros only select rows and columns of a mask. A transformed
mask is described by two index arrays: for each of its rows (columns) the original row (column), or -1 for padding.
"""

from collections.abc import Sequence
from copy import copy
from functools import cached_property
from typing import Any, NamedTuple

import cv2
import mmcv
import numpy as np
import torch
import torch.nn.functional as F
from mmdet.structures.bbox import BaseBoxes, HorizontalBoxes
from mmdet.structures.mask import BaseInstanceMasks, BitmapMasks
from numpy.typing import NDArray
from torch import Tensor

from stage1_proposals.common.run_lengths import decode, read_changes, repeated

Ints = NDArray[np.int64]
Index = NDArray[np.int32]


class Strips(NamedTuple):
    """Runs of L masks, cut at column borders: strip s covers rows `top[s]` to `bottom[s] - 1` of a column of a mask.

    The S strips are in the order of masks.
    """

    mask: Ints  # (S,)
    column: Ints  # (S,)
    top: Ints  # (S,)
    bottom: Ints  # (S,)


def strips(rle: Sequence[bytes], size: tuple[int, int]) -> Strips:
    """The strips of L masks of `size` (height, width), from their compressed COCO RLE."""
    height = size[0]
    mask, pixel = read_changes(rle, size)
    start, end = pixel[::2], pixel[1::2]
    first = start // height
    run, offset = repeated(np.where(end > start, (end - 1) // height - first + 1, 0))
    column = first[run] + offset
    top = np.maximum(start[run] - column * height, 0)
    return Strips(mask[::2][run], column, top, np.minimum(end[run] - column * height, height))


def areas(strips: Strips, count: int, size: tuple[int, int], rows: Index, columns: Index) -> Ints:
    """Areas in pixels of transformed masks: int64 (count,).

    Args:
        strips: of `count` original masks of `size` (height, width).
        rows, columns: index arrays of the transformed masks.
    """
    x, y = _transformed_edges(columns, size[1]), _transformed_edges(rows, size[0])
    pixels = abs(x[strips.column + 1] - x[strips.column]) * abs(y[strips.bottom] - y[strips.top])
    return np.bincount(strips.mask, pixels, count).astype(np.int64)


def tight_boxes(strips: Strips, count: int, size: tuple[int, int], rows: Index, columns: Index) -> Ints:
    """Tight boxes (x1, y1, x2, y2) of transformed masks: int64 (count, 4), zeros for a mask without pixels.

    x2 and y2 are exclusive. The arguments are those of `areas`.
    """
    x, y = _transformed_edges(columns, size[1]), _transformed_edges(rows, size[0])
    left, right = np.sort([x[strips.column], x[strips.column + 1]], axis=0)
    top, bottom = np.sort([y[strips.top], y[strips.bottom]], axis=0)
    visible = (left < right) & (top < bottom)
    mask = strips.mask[visible]
    boxes = np.zeros((count, 4), np.int64)
    boxes[mask, :2] = len(columns), len(rows)
    np.minimum.at(boxes, (mask, 0), left[visible])
    np.minimum.at(boxes, (mask, 1), top[visible])
    np.maximum.at(boxes, (mask, 2), right[visible])
    np.maximum.at(boxes, (mask, 3), bottom[visible])
    return boxes


def downsample_bilinear(
    strips: Strips, count: int, size: tuple[int, int], rows: Index, columns: Index, device: torch.device | str
) -> Tensor:
    """Means over blocks of two rows and two columns of transformed masks: float32 (count, h, w).

    Only the changes along each column are written; their cumulative sum gives the means. The masks are not decoded at
    any other size.

    Args:
        strips: of `count` original masks of `size` (height, width).
        rows, columns: index arrays (2 h) and (2 w): rows 2 i and 2 i + 1 make block i.
    """
    height, width = len(rows) // 2, len(columns) // 2
    x, y = _transformed_edges(columns, size[1]), _transformed_edges(rows, size[0])
    left = np.minimum(x[strips.column], x[strips.column + 1])
    begin, end = np.minimum(y[strips.top], y[strips.bottom]), np.maximum(y[strips.top], y[strips.bottom])
    widths = np.where(end > begin, abs(x[strips.column + 1] - x[strips.column]), 0)
    strip, offset = repeated(widths)
    corner = strips.mask[strip] * ((height + 1) * width) + (left[strip] + offset) // 2
    # Each row is half of its block. A strip that begins at an even row covers both halves from block begin // 2 on; one
    # that begins at an odd row covers one half there, and both from the next block on.
    begin, end = begin[strip], end[strip]
    changes = torch.from_numpy(
        np.stack([corner + row * width for row in (begin // 2, (begin + 1) // 2, end // 2, (end + 1) // 2)])
    ).to(device, non_blocking=True)
    means = torch.zeros(count * (height + 1) * width, device=device)
    means.index_add_(0, changes[:2].flatten(), means.new_full((1,), 0.25).expand(changes[:2].numel()))
    means.index_add_(0, changes[2:].flatten(), means.new_full((1,), -0.25).expand(changes[2:].numel()))
    return means.view(count, height + 1, width).cumsum_(1)[:, :height]


def _transformed_edges(index: Index, size: int) -> Ints:
    """Where the `size` + 1 edges of a mask's rows lie in the transformed mask: int64 (size + 1,).

    Row y covers the transformed rows from the smaller of `edges[y]` and `edges[y + 1]` up to the larger, exclusive.
    """
    inside = np.flatnonzero(index >= 0)
    if len(inside) == 0:
        return np.zeros(size + 1, np.int64)
    used = index[inside[0] : inside[-1] + 1]
    flipped = used[0] > used[-1]
    before = np.searchsorted(used[::-1] if flipped else used, np.arange(size + 1))
    return inside[0] + (len(used) - before if flipped else before)


class RunLengthMasks(BitmapMasks):
    """MMDetection's bitmap masks, kept as COCO RLE of the original image together with the transforms applied since.

    `at`, `areas` and `get_bboxes` are computed from the RLE. Everything else that MMDetection does with masks (`masks`,
    `to_tensor`, `crop_and_resize`, `rotate`, ...) works on bitmaps, which are decoded on first use and equal those that
    bitmaps from the start would have become.

    Args:
        rle: compressed counts of L masks.
        size: (height, width) of the masks.

    Attributes:
        height, width: current size, after all transforms.
        rows, columns: int32 (height,) and (width,), the index arrays of the transforms (see above).
    """

    def __init__(self, rle: Sequence[bytes], size: tuple[int, int]) -> None:
        self.rle = list(rle)
        self.size = size
        self.rows, self.columns = (np.arange(length, dtype=np.int32) for length in size)
        self.height, self.width = size

    def __getstate__(self) -> dict[str, Any]:
        """Without bitmaps, but with strips, so that the training process does not compute them again."""
        return {name: value for name, value in self.__dict__.items() if name != "masks"}

    def __len__(self) -> int:
        return len(self.rle)

    def __getitem__(self, index: Any) -> "RunLengthMasks":
        """The masks selected by an index, slice, list or (boolean) array; also a single one as masks."""
        selected = RunLengthMasks([self.rle[i] for i in np.atleast_1d(np.arange(len(self))[index])], self.size)
        return selected._transformed(self.rows, self.columns)

    @cached_property
    def masks(self) -> NDArray[np.uint8]:
        """The bitmaps: uint8 (L, height, width), 0 or 1."""
        bitmaps = np.zeros((len(self), self.height, self.width), np.uint8)
        if len(self):
            for bitmap, transposed in zip(bitmaps, decode(self.rle, self.size).transpose(0, 2, 1), strict=True):
                # Whole columns are copied, then whole rows.
                cv2.transpose(transposed[self.columns]).take(self.rows, axis=0, out=bitmap)
            bitmaps[:, self.rows < 0] = 0
            bitmaps[:, :, self.columns < 0] = 0
        return bitmaps

    @cached_property
    def strips(self) -> Strips:
        """The masks' strips at their original size."""
        return strips(self.rle, self.size)

    @property
    def areas(self) -> NDArray[np.int64]:
        """Area of each mask in pixels: int64 (L,)."""
        return areas(self.strips, len(self), self.size, self.rows, self.columns)

    def get_bboxes(self, dst_type: str = "hbox") -> BaseBoxes:
        """See `BaseInstanceMasks.get_bboxes`."""
        if dst_type != "hbox":
            return super().get_bboxes(dst_type)
        boxes = tight_boxes(self.strips, len(self), self.size, self.rows, self.columns)
        return HorizontalBoxes(torch.from_numpy(boxes).float())

    def at(self, size: tuple[int, int], device: torch.device | str = "cpu") -> Tensor:
        """The masks bilinearly resized to `size` (h, w), see `masks_at`: float32 (L, h, w).

        Where h and w divide height and width by an even number, each value is the mean of the four middle pixels of its
        block and is computed from the RLE; elsewhere bitmaps are resized.
        """
        if not len(self) or self.height % (2 * size[0]) or self.width % (2 * size[1]):
            return _bilinear(self, size, device)
        rows, columns = (
            index.reshape(length, -1)[:, len(index) // length // 2 - 1 :][:, :2].flatten()
            for index, length in zip((self.rows, self.columns), size, strict=True)
        )
        return downsample_bilinear(self.strips, len(self), self.size, rows, columns, device)

    def rescale(self, scale: Any, interpolation: str = "nearest") -> BitmapMasks:
        """See `BaseInstanceMasks.rescale`."""
        width, height = mmcv.rescale_size((self.width, self.height), scale)
        return self.resize((height, width), interpolation)

    def resize(self, out_shape: tuple[int, int], interpolation: str = "nearest") -> BitmapMasks:
        """See `BaseInstanceMasks.resize`."""
        if interpolation != "nearest":
            return super().resize(out_shape, interpolation)
        return self._transformed(_nearest(self.rows, out_shape[0]), _nearest(self.columns, out_shape[1]))

    def flip(self, flip_direction: str = "horizontal") -> "RunLengthMasks":
        """See `BaseInstanceMasks.flip`."""
        up_down, left_right = flip_direction != "horizontal", flip_direction != "vertical"
        return self._transformed(
            self.rows[::-1].copy() if up_down else self.rows, self.columns[::-1].copy() if left_right else self.columns
        )

    def pad(self, out_shape: tuple[int, int], pad_val: int = 0) -> BitmapMasks:
        """See `BaseInstanceMasks.pad`."""
        if pad_val:
            return super().pad(out_shape, pad_val)
        below, right = out_shape[0] - self.height, out_shape[1] - self.width
        return self._transformed(
            np.pad(self.rows, (0, below), constant_values=-1), np.pad(self.columns, (0, right), constant_values=-1)
        )

    def crop(self, bbox: NDArray[np.integer]) -> "RunLengthMasks":
        """See `BaseInstanceMasks.crop`."""
        x1, y1, x2, y2 = bbox
        return self._transformed(self.rows[y1:y2], self.columns[x1:x2])

    @classmethod
    def cat(cls, masks: Sequence[BitmapMasks]) -> BitmapMasks:
        """See `BaseInstanceMasks.cat`; returns bitmaps."""
        return BitmapMasks.cat(masks)

    def _transformed(self, rows: Index, columns: Index) -> "RunLengthMasks":
        transformed = copy(self)
        transformed.rows, transformed.columns = rows, columns
        transformed.height, transformed.width = len(rows), len(columns)
        return transformed


def masks_at(masks: BaseInstanceMasks, size: tuple[int, int], device: torch.device | str = "cpu") -> Tensor:
    """L masks of any type, bilinearly resized (without `align_corners`) to `size` (h, w): float32 (L, h, w)."""
    return masks.at(size, device) if isinstance(masks, RunLengthMasks) else _bilinear(masks, size, device)


def _bilinear(masks: BaseInstanceMasks, size: tuple[int, int], device: torch.device | str) -> Tensor:
    if not len(masks):
        return torch.zeros(0, *size, device=device)
    bitmaps = masks.to_tensor(torch.uint8, device)[None].float()
    return F.interpolate(bitmaps, size=size, mode="bilinear", align_corners=False)[0]


def _nearest(index: Index, length: int) -> Index:
    """An index array resized as MMDetection resizes bitmaps."""
    return mmcv.imresize(index[:, None], (1, length), interpolation="nearest", backend="cv2")[:, 0]
