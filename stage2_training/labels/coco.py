"""The user's own labels in COCO JSON: checked against their images and completed.

Other programs leave out what COCO's own files have: a missing `iscrowd` becomes 0, a missing `area` and `bbox` are
taken from the mask. A `bbox` that does not lie around the mask is replaced, too: some programs write two corners. If
it is neither a box nor two corners around the mask, a remark says so; if `area` contradicts the mask as well, the
object is malformed.
"""

import os
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from stage1_proposals.common.coco import (
    ADVICE,
    AnnotationError,
    CocoDocument,
    CocoImage,
    read_coco,
)
from stage1_proposals.common.errors import UserError, quoted
from stage1_proposals.common.image_paths import coco_roots, find_image, find_root, repeated_names
from stage1_proposals.common.masks import Size, mask_fields
from stage2_training.labels.conversion import Converted, LabelError, image_sizes, skip_malformed

MAX_OUTSIDE = 5  # pixels by which a polygon may reach over an edge without a remark


def convert_coco(path: Path, image_root: Path | None, skipped: list[str] | None = None) -> Converted:
    """Read COCO instance JSON and complete it.

    Args:
        image_root: the folder that `file_name` is relative to, or that has the images by their file names alone; None:
            the one of `coco_roots` that has the first image.
        skipped: images that are missing, cannot be used or have a malformed object are left out and noted here.

    Returns:
        `images` with `id`, `file_name`, `height` and `width`, complete `annotations` in the order of the images, and
        `categories`; `file_name` is relative to the folder of the images.

    Raises:
        UserError: as `read_coco`; unless `skipped` is a list, an image is missing or cannot be used, or an object is
            malformed.
    """
    document = read_coco(path)
    roots = coco_roots(path) if image_root is None else [image_root]
    paths = [image.file_name for image in document.images]
    # In a folder that the user names, an image may be found by its file name, as the images of labelme files are.
    ambiguous = None if image_root is None else repeated_names(paths)
    root = find_root(path, roots, paths, "--data-root (ROOT=)", ambiguous)
    names = {image.id: find_image(root, image.file_name, ambiguous) for image in document.images}
    sizes = image_sizes([root / name for name in names.values() if name is not None])
    images: dict[str, dict[str, Any]] = {}
    annotations: list[dict[str, Any]] = []
    misplaced: list[str] = []
    outside: list[str] = []
    real_folder = cache(os.path.realpath)
    for image in document.images:
        with skip_malformed(skipped):
            name = names[image.id]
            if name is None:
                raise LabelError(f"{root / image.file_name} is missing: {path} labels it", "put it back")
            # Links to one file may be meant, as of stores that keep equal files once; two paths of one file are not.
            place = os.path.join(real_folder((root / name).parent), Path(name).name)
            if place in images:
                known = images[place]["file_name"]
                other = "" if known == name else f", also as {quoted(known)}"
                raise UserError(f"{path}: labels {quoted(name)} twice{other}; name each image once")
            height, width = _checked_size(path, image, root / name, sizes[root / name])
            annotations += _complete(document, image, (height, width), misplaced, outside)
            images[place] = {"id": image.id, "file_name": name, "height": height, "width": width}
    categories = [{"id": number, "name": name} for number, name in document.categories.items()]
    remarks = list(document.remarks)
    if misplaced:
        remarks.append(f"{misplaced[0]}: `bbox` is not around its mask, whose box is used; {len(misplaced):,} in all")
    if outside:
        remarks.append(
            f"{outside[0]}: a polygon leaves its image by more than {MAX_OUTSIDE} pixels; what is inside is used; "
            f"{len(outside):,} in all"
        )
    coco = {"images": list(images.values()), "annotations": annotations, "categories": categories}
    return Converted(coco, root, remarks)


def _checked_size(path: Path, image: CocoImage, file: Path, size: Size | LabelError) -> Size:
    """The size of an image's file, which is the one that the labels state, if they do."""
    if isinstance(size, LabelError):
        raise size
    if image.size not in (None, size):
        (height, width), (label_height, label_width) = size, image.size
        raise LabelError(
            f"{file} is {width} x {height} pixels as displayed, but {path} says {label_width} x {label_height}",
            "restore the image, correct the file",
        )
    return size


def _complete(
    document: CocoDocument, image: CocoImage, size: Size, misplaced: list[str], outside: list[str]
) -> list[dict[str, Any]]:
    """An image's annotations with everything that COCO's annotations have, except an id.

    Args:
        misplaced: objects whose box is not around their mask are noted here.
        outside: objects whose polygons leave the image are noted here.
    """
    completed = []
    try:
        for annotation in document.annotations_of(image):
            category = document.check_category(annotation)
            mask = mask_fields(annotation.rle(size))
            if not mask["area"]:
                raise AnnotationError(f"{annotation.where}: no pixel of it is inside its image")
            if annotation.bbox is not None and not annotation.has_box_around(mask["bbox"], size):
                misplaced.append(annotation.where)
            if _leaves_image(annotation.segmentation, size):
                outside.append(annotation.where)
            completed.append(
                {
                    "image_id": annotation.image_id,
                    "category_id": category,
                    "iscrowd": int(annotation.iscrowd),
                    "area": annotation.area or float(mask["area"]),
                    "bbox": annotation.box_around(mask["bbox"]),
                    "segmentation": annotation.segmentation,
                }
            )
    except AnnotationError as error:
        raise LabelError(error.what, ADVICE) from error
    return completed


def _leaves_image(segmentation: Any, size: Size) -> bool:
    """Whether a point of polygons lies far outside their image; run lengths cannot."""
    if not isinstance(segmentation, list):
        return False
    points = np.concatenate([np.reshape(polygon, (-1, 2)) for polygon in segmentation])
    height, width = size
    return bool((points < -MAX_OUTSIDE).any() or (points > np.array([width, height]) + MAX_OUTSIDE).any())
