"""What a detector finds in one image, as a record of arrays. Needs no PyTorch."""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from stage1_proposals.common.drawing import TILE, draw_named
from stage1_proposals.common.masks import Rle, Size, encode_masks
from stage1_proposals.common.run_lengths import decode
from stage1_proposals.images.decode import to_pixels


@dataclass(frozen=True)
class Prediction:
    """The objects found in an image, R of them, the best-scored first.

    Attributes:
        size: the image's (height, width) in pixels, as displayed.
        rle: their masks as pycocotools' run lengths, of the image's size.
        boxes: float32 (R, 4), x1, y1, x2, y2 in pixels: the detector's own or, if it has none, tight around the masks.
        scores: float32 (R,), in [0, 1].
        labels: int64 (R,), positions in the list of the detector's classes.
        names: the classes' names.
    """

    size: Size
    rle: Sequence[Rle]
    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]
    labels: NDArray[np.int64]
    names: Sequence[str]

    def __len__(self) -> int:
        return len(self.rle)

    @property
    def masks(self) -> NDArray[np.bool_]:
        """The masks, bool (R, H, W); decoded anew each time."""
        return decode([rle["counts"] for rle in self.rle], self.size).astype(bool)

    def take(self, rows: Sequence[int] | NDArray[np.integer]) -> "Prediction":
        """The objects of these rows, in their order."""
        rows = np.asarray(rows, np.int64)
        return Prediction(
            self.size,
            [self.rle[row] for row in rows],
            self.boxes[rows],
            self.scores[rows],
            self.labels[rows],
            [self.names[row] for row in rows],
        )

    def at_least(self, score: float) -> "Prediction":
        """The objects with this score or a higher one."""
        return self.take(np.flatnonzero(self.scores >= score))

    def draw(self, image: NDArray[np.uint8] | Image.Image, tile: int = TILE) -> Image.Image:
        """The image with the objects' masks, names and scores.

        Args:
            image: uint8 (H, W, 3) in RGB, or a Pillow image, whose EXIF orientation is applied.
            tile: length of the drawing's longer side, in pixels.
        """
        pixels = to_pixels(image) if isinstance(image, Image.Image) else image
        masks = (decode([rle["counts"]], self.size)[0] for rle in self.rle)
        names = [f"{name} {score:.2f}" for name, score in zip(self.names, self.scores.tolist(), strict=True)]
        return draw_named(pixels, masks, names, tile=tile)


def rle_at_size(mask: NDArray[np.bool_], size: Size) -> Rle:
    """Run lengths of a mask (H, W) at the image's size, which may be larger."""
    if mask.shape != tuple(size):
        mask = cv2.resize(mask.astype(np.uint8) * 255, size[::-1], interpolation=cv2.INTER_LINEAR) > 127
    return encode_masks(mask[None])[0]
