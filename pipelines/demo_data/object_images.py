"""Labels of demo images with things on them: what a model that has seen no label is judged by, class-agnostically."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image
from pycocotools import mask as coco_mask

from pipelines.demo_data.images import draw_image
from stage1_proposals.common.coco import mask_fields

CATEGORIES = ({"id": 1, "name": "thing"},)


def draw_object_image(rng: np.random.Generator) -> tuple[Image.Image, list[np.ndarray]]:
    """An image as `draw_image` gives them, with one thing at least; and the things' masks, bool (H, W)."""
    while True:
        image, masks = draw_image(rng)
        if masks:
            return image, masks


def annotations(image_id: int, masks: Sequence[np.ndarray]) -> list[dict[str, Any]]:
    """An image's COCO annotations, without ids of their own."""
    return [
        {
            "image_id": image_id,
            "category_id": CATEGORIES[0]["id"],
            "iscrowd": 0,
            **mask_fields(coco_mask.encode(np.asfortranarray(mask, np.uint8))),
        }
        for mask in masks
    ]
