"""The user's own labels in COCO JSON: checked against their images and completed.

Other programs leave out what COCO's own files have: a missing `iscrowd` becomes 0, a missing `area` and `bbox` are
taken from the mask. A `bbox` that does not lie around the mask is replaced, too: some programs write two corners.
"""

from pathlib import Path
from typing import Any

from stage1_proposals.common.coco import ADVICE, AnnotationError, CocoAnnotation, CocoDocument, CocoImage, read_coco
from stage1_proposals.common.image_paths import coco_roots, find_root
from stage1_proposals.common.masks import Size, mask_fields
from stage2_training.labels.conversion import Coco, LabelError, image_size, skip_malformed

BOX_TOLERANCE = 2  # pixels by which rasterising a polygon may move an edge


def convert_coco(path: Path, image_root: Path | None, skipped: list[str] | None = None) -> tuple[Coco, Path]:
    """Read COCO instance JSON and complete it.

    Args:
        image_root: the folder that `file_name` is relative to; None: the one of `coco_roots` that has the first image.
        skipped: images that are missing or have a malformed object are left out and noted here.

    Returns:
        `images` with `id`, `file_name`, `height` and `width`, complete `annotations` in the order of the images, and
        `categories`; and the folder of the images.

    Raises:
        UserError: as `read_coco`; unless `skipped` is a list, an image is missing or an object is malformed.
    """
    document = read_coco(path)
    roots = coco_roots(path) if image_root is None else [image_root]
    root = find_root(path, roots, [image.file_name for image in document.images], "--data-root (ROOT=)")
    images, annotations = [], []
    for image in document.images:
        with skip_malformed(skipped):
            height, width = _checked_size(path, image, root)
            completed = [_complete(document, row, (height, width)) for row in document.rows[image.id]]
            images.append({"id": image.id, "file_name": image.file_name, "height": height, "width": width})
            annotations += completed
    categories = [{"id": number, "name": name} for number, name in document.categories.items()]
    return {"images": images, "annotations": annotations, "categories": categories}, root


def _checked_size(path: Path, image: CocoImage, root: Path) -> Size:
    """The size of an image's file, which is the one that the labels state, if they do."""
    file = root / image.file_name
    if not file.is_file():
        raise LabelError(f"{file} is missing: {path} labels it", "put it back")
    size = image_size(file)
    if image.size not in (None, size):
        (height, width), (label_height, label_width) = size, image.size
        raise LabelError(
            f"{file} is {width} x {height} pixels as displayed, but {path} says {label_width} x {label_height}",
            "restore the image, correct the file",
        )
    return size


def _complete(document: CocoDocument, row: int, size: Size) -> dict[str, Any]:
    """An object's annotation with everything that COCO's annotations have, except an id."""
    try:
        annotation = document.annotation(row)
        if annotation.category_id not in document.categories:
            raise AnnotationError(f"{annotation.where} has no `category_id` that is in its categories")
        mask = mask_fields(annotation.rle(size))
        if not mask["area"]:
            raise AnnotationError(f"{annotation.where} has no pixel inside its image")
    except AnnotationError as error:
        raise LabelError(error.what, ADVICE) from error
    return {
        "image_id": annotation.image_id,
        "category_id": annotation.category_id,
        "iscrowd": int(annotation.iscrowd),
        "area": annotation.area if annotation.area and annotation.area > 0 else float(mask["area"]),
        "bbox": _box(annotation, mask["bbox"]),
        "segmentation": annotation.segmentation,
    }


def _box(annotation: CocoAnnotation, tight: list[int]) -> list[float]:
    """The box as the file states it if it lies around the mask, else the mask's."""
    box = annotation.bbox
    if box and all(abs(stated - value) <= BOX_TOLERANCE for stated, value in zip(box, tight, strict=True)):
        return box
    return [float(value) for value in tight]
