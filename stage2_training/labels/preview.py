"""A contact sheet of labelled images with their masks and class names, to check labels by eye."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image

from stage1_proposals.common.drawing import contact_sheet, draw_named, palette
from stage1_proposals.common.errors import UserError
from stage1_proposals.common.files import writing
from stage1_proposals.common.masks import to_mask
from stage1_proposals.images.decode import ImageError, read_reduced
from stage2_training.labels.coco_subset import rank_by_seed
from stage2_training.labels.conversion import Coco

TILE = 400
COLUMNS = 4
CROWD = (255, 255, 255)
LEGIBLE = 24  # pixels on the sheet; the name of an object smaller than this is not written


def draw_sheet(coco: Coco, image_root: Path, path: Path, count: int) -> int:
    """Draw the labels of up to `count` images, those with objects first; crowds, which evaluation ignores, are white.

    Args:
        image_root: the folder that `file_name` is relative to.
        path: the picture to write.

    Returns:
        number of images drawn.

    Raises:
        UserError: an image cannot be read or its size is not that of its labels, or the sheet cannot be written.
    """
    objects: dict[int, list[dict[str, Any]]] = {image["id"]: [] for image in coco["images"]}
    for annotation in coco["annotations"]:
        objects[annotation["image_id"]].append(annotation)
    names = {category["id"]: category["name"] for category in coco["categories"]}
    images = rank_by_seed(coco["images"], 0, key=lambda image: image["file_name"])
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
        pixels, (height, width) = read_reduced(path, TILE)
    except ImageError as error:
        raise UserError(f"{path}: {error}") from error
    if (image["height"], image["width"]) != (height, width):
        raise UserError(
            f"{path}: is {width} x {height} pixels, but its labels are for {image['width']} x {image['height']}"
        )
    annotations = sorted(annotations, key=lambda annotation: (annotation["iscrowd"], annotation["area"]))
    colours = [
        CROWD if annotation["iscrowd"] else colour
        for annotation, colour in zip(annotations, palette(len(annotations)), strict=True)
    ]
    # Decoded one by one: those of a large image with many objects would take gigabytes together.
    masks = (to_mask(annotation["segmentation"], (height, width)) for annotation in annotations)
    legible = LEGIBLE * max(height, width) / TILE
    shown = [
        names[annotation["category_id"]] if max(annotation["bbox"][2:]) >= legible else "" for annotation in annotations
    ]
    return draw_named(pixels, masks, shown, colours, TILE)
