"""Random shapes: the "bad" pseudo labels of the paper's Table 7."""

from dataclasses import asdict
from typing import Annotated, Any, ClassVar, Literal, Self

import numpy as np
import torch
from pycocotools import mask as coco_mask
from pydantic import Field, NonNegativeInt, PositiveInt, model_validator
from pydantic.dataclasses import dataclass

from stage1_proposals.common.settings import SETTINGS
from stage1_proposals.generators.base import Batch, ImageInfo, Proposals
from stage1_proposals.generators.seeds import pool_proposals

ELLIPSE_CORNERS = 64


@dataclass(frozen=True, config=SETTINGS)
class RandomGenerator:
    """Random rectangles and ellipses, which depend only on the settings and the image id.

    Side lengths are uniform between `min_side` and `max_side`, positions are uniform where the shape fits. All scores
    are 1, because nothing ranks random shapes.

    Attributes:
        count: proposals per image.
        seed: of the random numbers, together with the image id.
        shapes: each is drawn with equal probability.
        min_side, max_side: as fractions of the image's height and width.
    """

    NAME: ClassVar[str] = "random"

    count: PositiveInt = 20
    seed: NonNegativeInt = 0
    shapes: Annotated[tuple[Literal["rectangle", "ellipse"], ...], Field(min_length=1)] = ("rectangle", "ellipse")
    min_side: float = 0.1
    max_side: float = 0.7

    @model_validator(mode="after")
    def _check_sides(self) -> Self:
        if not 0 < self.min_side <= self.max_side <= 1:
            raise ValueError(f"min_side {self.min_side}, max_side {self.max_side}: use 0 < min_side <= max_side <= 1")
        return self

    def parameters(self) -> dict[str, Any]:
        return {"name": self.NAME, **asdict(self)}

    @torch.inference_mode()
    def __call__(self, batch: Batch) -> list[Proposals]:
        return [
            pool_proposals(features, rle := self._masks(image), np.ones(len(rle), np.float32), image.size)
            for features, image in zip(batch.features, batch.images, strict=True)
        ]

    def _masks(self, image: ImageInfo) -> list[bytes]:
        """The shapes of one image as COCO compressed RLE counts."""
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
        # In an image of few pixels, a shape may not cover the centre of any pixel.
        return [mask["counts"] for mask in masks if coco_mask.area(mask) > 0]
