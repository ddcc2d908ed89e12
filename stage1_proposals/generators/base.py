"""Proposals: what a generator is given, and the struct of arrays that it returns for each image."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from stage1_proposals.common.coco import mask_areas, mask_boxes, rle_objects
from stage1_proposals.images.decode import ImageError
from stage1_proposals.shards import ImageRecord


@dataclass(frozen=True)
class ImageInfo:
    """What is known of an image besides its features.

    Attributes:
        image_id: as in the shards.
        file_name: path relative to the image root.
        size: (height, width) in pixels, as a person sees the image.
    """

    image_id: int
    file_name: str
    size: tuple[int, int]


@dataclass(frozen=True)
class Batch:
    """Images of one input size on their way through a generator.

    Attributes:
        features: X, float32 (B, D, h, w), on the job's device.
        images: B of them.
    """

    features: Tensor
    images: Sequence[ImageInfo]


@dataclass(frozen=True)
class Proposals:
    """L proposals of one image, in the order they are stored.

    Attributes:
        rle: L COCO compressed RLE counts at full image size.
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
    return mask_boxes(rle_objects(rle, size)).astype(np.float32)


def areas(rle: Sequence[bytes], size: tuple[int, int]) -> NDArray[np.int64]:
    """Pixels (L,) of masks."""
    return mask_areas(rle_objects(rle, size))


def to_record(proposals: Proposals, image: ImageInfo) -> ImageRecord:
    """A shard's row: proposals with the tight boxes and areas of their masks."""
    return ImageRecord(
        image_id=image.image_id,
        file_name=image.file_name,
        height=image.size[0],
        width=image.size[1],
        bbox=boxes(proposals.rle, image.size),
        score=proposals.scores.astype(np.float32),
        area=areas(proposals.rle, image.size),
        seed=proposals.seeds.astype(np.float32),
        feature=proposals.features.astype(np.float16),
        rle=list(proposals.rle),
    )


class ProposalGenerator(Protocol):
    """Makes proposals of images from their feature maps; a frozen dataclass whose fields are its settings.

    One made elsewhere is named `package.module:Class` and takes its settings as keyword arguments.
    """

    def parameters(self) -> dict[str, Any]:
        """Name and settings, JSON-ready; two runs with equal ones make equal proposals."""

    def __call__(self, batch: Batch) -> Sequence[Proposals | ImageError]:
        """Proposals of each image of the batch, or why it cannot have any.

        They may depend on nothing but the image and the settings.
        """
