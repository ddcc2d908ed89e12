"""Proposals: what a generator is given, and the struct of arrays that it returns for each photo."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask
from torch import Tensor

from stage1_proposals.shards import ImageRecord


@dataclass(frozen=True)
class PhotoInfo:
    """What is known of a photo besides its features.

    Attributes:
        image_id: as in the shards.
        file_name: path relative to the image root.
        size: (height, width) in pixels, as a person sees the photo.
    """

    image_id: int
    file_name: str
    size: tuple[int, int]


@dataclass(frozen=True)
class Batch:
    """Photos of one input size on their way through a generator.

    Attributes:
        features: X, float32 (B, D, h, w), on the job's device.
        photos: B of them.
    """

    features: Tensor
    photos: Sequence[PhotoInfo]


@dataclass(frozen=True)
class Proposals:
    """L proposals of one photo, in the order they are stored.

    Attributes:
        rle: L COCO compressed RLE counts at full photo size.
        scores: float32 (L,), in [0, 1].
        seeds: float32 (L, 2), seed centre (y, x) in [0, 1] of height and width.
        features: float (L, D), the seed feature S_l; stored as float16.
    """

    rle: Sequence[bytes]
    scores: NDArray[np.float32]
    seeds: NDArray[np.float32]
    features: NDArray[np.floating]

    def __len__(self) -> int:
        return len(self.rle)

    def take(self, rows: Sequence[int] | NDArray[np.int64]) -> "Proposals":
        """The proposals of these rows, in their order."""
        rows = np.asarray(rows, np.int64)
        return Proposals([self.rle[row] for row in rows], self.scores[rows], self.seeds[rows], self.features[rows])


def boxes(rle: Sequence[bytes], size: tuple[int, int]) -> NDArray[np.float32]:
    """Tight boxes (L, 4) of masks: x1, y1, x2, y2 in pixels, x2 and y2 one past the last pixel."""
    objects = [{"size": list(size), "counts": counts} for counts in rle]
    corner_and_size = np.asarray(coco_mask.toBbox(objects), np.float32).reshape(-1, 4)
    return np.concatenate([corner_and_size[:, :2], corner_and_size[:, :2] + corner_and_size[:, 2:]], axis=1)


def areas(rle: Sequence[bytes], size: tuple[int, int]) -> NDArray[np.int64]:
    """Pixels (L,) of masks."""
    objects = [{"size": list(size), "counts": counts} for counts in rle]
    return np.asarray(coco_mask.area(objects), np.int64).reshape(-1)


def to_record(proposals: Proposals, photo: PhotoInfo) -> ImageRecord:
    """A shard's row: proposals with the tight boxes and areas of their masks."""
    return ImageRecord(
        image_id=photo.image_id,
        file_name=photo.file_name,
        height=photo.size[0],
        width=photo.size[1],
        bbox=boxes(proposals.rle, photo.size),
        score=proposals.scores.astype(np.float32),
        area=areas(proposals.rle, photo.size),
        seed=proposals.seeds.astype(np.float32),
        feature=proposals.features.astype(np.float16),
        rle=list(proposals.rle),
    )
