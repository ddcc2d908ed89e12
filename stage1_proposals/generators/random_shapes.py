"""Random proposals: the "bad" pseudo labels of the paper's Table 7."""

from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from pycocotools import mask as coco_mask

from stage1_proposals.common.errors import UserError
from stage1_proposals.generators.base import Batch, ImageInfo, Proposals
from stage1_proposals.generators.seeds import pool_proposals

SHAPES = ("rectangle", "ellipse")
ELLIPSE_CORNERS = 64


@dataclass(frozen=True)
class RandomGenerator:
    """Rectangles and ellipses of random place and size, the same for an image whatever the run.

    Sides are uniform between `min_side` and `max_side`, places uniform where the shape fits. All scores are 1:
    nothing is known that would rank them.

    Attributes:
        count: proposals per image.
        seed: of the random numbers, together with the image id.
        shapes: drawn from with equal chance.
        min_side, max_side: as fractions of the image's height and width.
    """

    NAME: ClassVar[str] = "random"

    count: int = 20
    seed: int = 0
    shapes: tuple[str, ...] = SHAPES
    min_side: float = 0.1
    max_side: float = 0.7

    def __post_init__(self) -> None:
        if not isinstance(self.count, int) or self.count < 1:
            raise UserError(f"count {self.count!r}: must be a whole number, 1 or more")
        if not isinstance(self.seed, int) or self.seed < 0:
            raise UserError(f"seed {self.seed!r}: must be a whole number, 0 or more")
        if not self.shapes or not set(self.shapes) <= set(SHAPES):
            raise UserError(f"shapes {list(self.shapes)}: use {' or '.join(SHAPES)}, or both")
        if not 0 < self.min_side <= self.max_side <= 1:
            raise UserError(f"min_side {self.min_side}, max_side {self.max_side}: write 0 < min_side <= max_side <= 1")

    def parameters(self) -> dict[str, Any]:
        return {"name": self.NAME, **asdict(self)}

    @torch.inference_mode()
    def __call__(self, batch: Batch) -> list[Proposals]:
        return [
            pool_proposals(features, rle := self._masks(image), np.ones(len(rle), np.float32), image.size)
            for features, image in zip(batch.features, batch.images, strict=True)
        ]

    def _masks(self, image: ImageInfo) -> list[bytes]:
        """RLE counts of one image's shapes."""
        height, width = image.size
        random = np.random.default_rng([self.seed, image.image_id % 2**64])  # ids may be negative
        sides = random.uniform(self.min_side, self.max_side, (self.count, 2))
        corners = random.uniform(0, 1 - sides)
        shapes = random.choice(self.shapes, self.count)
        angles = np.linspace(0, 2 * np.pi, ELLIPSE_CORNERS, endpoint=False)
        masks = []
        for shape, (y, x), (rows, columns) in zip(shapes, corners, sides, strict=True):
            if shape == "rectangle":
                outline = np.array([(x, y), (x + columns, y), (x + columns, y + rows), (x, y + rows)])
            else:
                outline = np.stack([x + columns * (1 + np.cos(angles)) / 2, y + rows * (1 + np.sin(angles)) / 2], 1)
            polygon = (outline * [width, height]).ravel().tolist()
            masks += coco_mask.frPyObjects([polygon], height, width)
        # On an image of a few pixels a shape can cover the centre of none.
        return [mask["counts"] for mask in masks if coco_mask.area(mask) > 0]
