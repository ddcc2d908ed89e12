"""Instance masks that stay run lengths until somebody needs pixels, and then are made at the size needed."""

from collections.abc import Sequence
from copy import copy
from functools import cached_property
from typing import Any

import cv2
import mmcv
import numpy as np
import torch
import torch.nn.functional as F
from mmdet.structures.mask import BaseInstanceMasks, BitmapMasks
from numpy.typing import NDArray
from torch import Tensor

from stage1_proposals.shards.run_lengths import decode
from stage2_training.data.run_lengths import Strips, areas, middle_means, strips


class RunLengthMasks(BitmapMasks):
    """MMDetection's bitmap masks, kept as COCO's run lengths of the whole photo.

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
