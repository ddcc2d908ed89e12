"""A few labelled images with their masks and classes drawn in, for a check by eye."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw
from pycocotools import mask as coco_mask

from stage1_proposals.common.drawing import contact_sheet, draw_masks, palette
from stage1_proposals.common.errors import UserError
from stage1_proposals.common.files import writing
from stage1_proposals.images.decode import ImageError, read_image
from stage2_training.labels.coco_subset import rank
from stage2_training.labels.conversion import Coco

TILE = 400
COLUMNS = 4
FONT = 11
CROWD = (255, 255, 255)
LEGIBLE = 24  # pixels on the sheet that a box needs on one side for its class to be written


def draw_sheet(coco: Coco, image_root: Path, path: Path, count: int) -> int:
    """Draw labels of up to `count` images, those that have any first; crowds, which evaluation ignores, in white.

    Args:
        images: the folder that `file_name` is relative to.

    Returns:
        how many were drawn.

    Raises:
        UserError: an image cannot be read or has not the size of its labels, or the sheet cannot be written.
    """
    objects: dict[int, list[dict[str, Any]]] = {image["id"]: [] for image in coco["images"]}
    for annotation in coco["annotations"]:
        objects[annotation["image_id"]].append(annotation)
    names = {category["id"]: category["name"] for category in coco["categories"]}
    images = rank(coco["images"], 0, key=lambda image: image["file_name"])
    images.sort(key=lambda image: not objects[image["id"]])
    tiles = [_tile(image, objects[image["id"]], names, image_root) for image in images[:count]]
    with writing(path):
        contact_sheet(tiles, COLUMNS, TILE).save(path)
    return len(tiles)


def _tile(
    image: Mapping[str, Any], annotations: list[dict[str, Any]], names: Mapping[int, str], image_root: Path
) -> Image.Image:
    path = image_root / image["file_name"]
    try:
        pixels = read_image(path)
    except ImageError as error:
        raise UserError(f"{path}: {error}") from error
    height, width = pixels.shape[:2]
    if (image["height"], image["width"]) != (height, width):
        raise UserError(
            f"{path}: is {width} x {height} pixels, but its labels are for {image['width']} x {image['height']}"
        )
    annotations = sorted(annotations, key=lambda annotation: (annotation["iscrowd"], annotation["area"]))
    spread = palette(len(annotations))
    colours = [CROWD if one["iscrowd"] else colour for one, colour in zip(annotations, spread, strict=True)]
    masks = [_mask(annotation["segmentation"], height, width) for annotation in annotations]
    tile = draw_masks(pixels, np.array(masks).reshape(-1, height, width), colours, TILE)
    draw = ImageDraw.Draw(tile)
    scale = TILE / max(height, width)
    for annotation, colour in zip(annotations, colours, strict=True):
        x, y, *sides = (scale * value for value in annotation["bbox"])
        if max(sides) < LEGIBLE:
            continue
        text = names[annotation["category_id"]]
        left, top, right, bottom = draw.textbbox((x + 2, y + 1), text, font_size=FONT)
        shift = min(0, tile.width - right - 1), min(0, tile.height - bottom - 1)
        left, top, right, bottom = left + shift[0], top + shift[1], right + shift[0], bottom + shift[1]
        draw.rectangle((left - 1, top - 1, right + 1, bottom + 1), fill="black")
        light = tuple((value + 255) // 2 for value in colour)
        draw.text((x + 2 + shift[0], y + 1 + shift[1]), text, light, font_size=FONT)
    return tile


def _mask(segmentation: Any, height: int, width: int) -> np.ndarray:
    """A COCO segmentation as uint8 (H, W)."""
    if isinstance(segmentation, list):
        segmentation = coco_mask.merge(coco_mask.frPyObjects(segmentation, height, width))
    elif isinstance(segmentation["counts"], list):
        segmentation = coco_mask.frPyObjects(segmentation, height, width)
    return coco_mask.decode(segmentation)
