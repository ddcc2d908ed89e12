"""The interface of proposal generators: batches of image features in, proposals out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from stage1_proposals.common.masks import mask_areas, mask_boxes, rle_objects
from stage1_proposals.images.decode import ImageError
from stage1_proposals.shards import ImageRecord


@dataclass(frozen=True)
class ImageInfo:
    """An image's identity and size.

    Attributes:
        image_id: as in the shards.
        file_name: path relative to the image root.
        size: (height, width) in pixels, after EXIF orientation.
    """

    image_id: int
    file_name: str
    size: tuple[int, int]


@dataclass(frozen=True)
class Batch:
    """Images that have the same input size, and their features.

    Attributes:
        features: X, float32 (B, D, h, w), on the job's device.
        images: the B images.
        image_root: folder that their file names are relative to, for generators that look at pixels.
        pixels: what the features are of, RGB (B, 3, H, W), 0-255, on the job's device; a job always has them.
    """

    features: Tensor
    images: Sequence[ImageInfo]
    image_root: str = ""
    pixels: Tensor | None = None


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
        """The proposals in `rows`, in that order."""
        rows = np.asarray(rows, np.int64)
        return Proposals([self.rle[row] for row in rows], self.scores[rows], self.seeds[rows], self.features[rows])


def to_record(proposals: Proposals, image: ImageInfo) -> ImageRecord:
    """The record that a shard stores: proposals with the tight boxes and areas of their masks."""
    masks = rle_objects(proposals.rle, image.size)
    return ImageRecord(
        image_id=image.image_id,
        file_name=image.file_name,
        height=image.size[0],
        width=image.size[1],
        bbox=mask_boxes(masks).astype(np.float32),
        score=proposals.scores.astype(np.float32),
        area=mask_areas(masks),
        seed=proposals.seeds.astype(np.float32),
        feature=proposals.features.astype(np.float16),
        rle=list(proposals.rle),
    )


class ProposalGenerator(Protocol):
    """Makes proposals from feature maps; a frozen dataclass whose fields are its settings.

    A user's own is named `package.module:Class` and gets its settings as keyword arguments.
    """

    def parameters(self) -> dict[str, Any]:
        """Name and settings, JSON-serialisable; generators with equal parameters make equal proposals."""

    def __call__(self, batch: Batch) -> Sequence[Proposals | ImageError]:
        """Proposals of each image of the batch, or the reason why an image cannot have any.

        They may depend on the image and the settings only, not on the other images of the batch.
        """


@runtime_checkable
class ChecksImages(Protocol):
    """A generator that must know the job's images before it starts."""

    def check_images(self, images: Mapping[str, int]) -> None:
        """Take note of all images, paths to ids; before any work, in the process that starts the job.

        Raises:
            UserError: there is nothing to make of them.
        """
