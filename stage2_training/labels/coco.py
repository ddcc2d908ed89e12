"""Labels of one's own in COCO JSON, as many programs write them: read, checked and completed.

What COCO's own files have and others may lack is filled in: `iscrowd` is 0, `area` and `bbox` are those of the mask.
The mask's is also taken for a `bbox` that does not lie around it, as of programs that write two corners.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from stage1_proposals.common.errors import UserError
from stage1_proposals.images.listing import coco_roots
from stage2_training.labels.conversion import Coco, LabelError, image_size, leaving_out

ADVICE = "correct the file"


def read_coco(path: Path, image_root: Path | None, skipped: list[str] | None = None) -> tuple[Coco, Path]:
    """Read COCO instance JSON.

    Args:
        images: the folder that `file_name` is relative to; None: beside the file or one folder up, there or in a
            folder for images, as stage 1 looks for them.
        skipped: images that are missing, or an object of which is malformed, are left out and noted here.

    Returns:
        `images` with `id`, `file_name`, `height` and `width`, complete `annotations` by image, `categories`; and the
        folder of the images.

    Raises:
        UserError: it cannot be read, is not COCO instance JSON, an id or a class's name stands twice; unless noted, a
            image is missing or an object malformed.
    """
    document = _parsed(path)
    categories = _unique(path, document["categories"], "categories", "id", "name")
    _unique(path, document["categories"], "categories", "name")
    entries = _unique(path, document["images"], "images", "id", "file_name")
    objects: dict[int, list[tuple[int, dict[str, Any]]]] = {number: [] for number in entries}
    for row, annotation in enumerate(document["annotations"]):
        if not isinstance(annotation, dict) or annotation.get("image_id") not in objects:
            raise UserError(f"{path}: annotations[{row}] has no `image_id` that is in its images; {ADVICE}")
        objects[annotation["image_id"]].append((row, annotation))
    root = _root(path, image_root, [entry["file_name"] for entry in entries.values()])
    images, annotations = [], []
    for number, entry in entries.items():
        with leaving_out(skipped):
            image = _image(path, entry, root)
            complete = [
                _complete(f"{path}: annotations[{row}]", one, image, categories) for row, one in objects[number]
            ]
            images.append(image)
            annotations += complete
    kept = [{"id": number, "name": category["name"]} for number, category in categories.items()]
    return {"images": images, "annotations": annotations, "categories": kept}, root


def _parsed(path: Path) -> dict[str, list]:
    try:
        document = json.loads(path.read_bytes())
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: not JSON ({error})") from error
    if isinstance(document, dict) and "shapes" in document:
        raise UserError(f"{path}: is a labelme file, which labels one image; name the folder of all of them")
    for key in ("images", "annotations", "categories"):
        if not isinstance(document, dict) or not isinstance(document.get(key), list):
            raise UserError(f"{path}: not COCO instance JSON, it has no list `{key}`")
    return document


def _unique(path: Path, entries: list, name: str, key: str, *more: str) -> dict[Any, dict[str, Any]]:
    """Entries by their key, a whole number if it is `id`, else text; `more` texts are there as well.

    Raises:
        UserError: naming the first entry that lacks them, or has another's key.
    """
    found: dict[Any, dict[str, Any]] = {}
    for row, entry in enumerate(entries):
        for part in (key, *more):
            kind, what = (int, "whole number") if part == "id" else (str, "text")
            if not isinstance(entry, dict) or type(entry.get(part)) is not kind:
                raise UserError(f"{path}: {name}[{row}] needs a {what} as `{part}`; {ADVICE}")
        if entry[key] in found:
            raise UserError(f"{path}: {name}[{row}] has the {key} {entry[key]!r} of another; {ADVICE}")
        found[entry[key]] = entry
    return found


def _root(path: Path, image_root: Path | None, names: list[str]) -> Path:
    """The folder of the images: where the first is that is found."""
    roots = coco_roots(path) if image_root is None else [image_root]
    for name in names:
        for root in roots:
            if (root / name).is_file():
                return root
    raise UserError(
        f"{path}: none of its {len(names)} images is under {' or '.join(map(str, roots))}; say where they are with "
        f"--data-root (ROOT=)"
    )


def _image(path: Path, entry: Mapping[str, Any], root: Path) -> dict[str, Any]:
    """An image's entry, of its image's size."""
    file = root / entry["file_name"]
    if not file.is_file():
        raise LabelError(f"{file} is missing: {path} labels it", "put it back")
    width, height = image_size(file)
    stated = (entry.get("width", width), entry.get("height", height))
    if stated != (width, height):
        raise LabelError(
            f"{file} is {width} x {height} pixels as displayed, but {path} says {stated[0]} x {stated[1]}",
            "restore the image, correct the file",
        )
    return {"id": entry["id"], "file_name": entry["file_name"], "height": height, "width": width}


def _complete(
    where: str, annotation: Mapping[str, Any], image: Mapping[str, Any], categories: Mapping[int, Any]
) -> dict[str, Any]:
    """An object's annotation with all that COCO's have, except an id.

    Raises:
        LabelError: its class is unknown, or it has no mask.
    """
    if annotation.get("category_id") not in categories:
        raise LabelError(f"{where} has no `category_id` that is in its categories", ADVICE)
    mask = annotation.get("segmentation")
    size = [image["height"], image["width"]]
    try:
        if isinstance(mask, list) and all(len(polygon) >= 6 and len(polygon) % 2 == 0 for polygon in mask):
            if not np.isfinite(np.concatenate([np.array(polygon, float) for polygon in mask])).all():
                raise ValueError
            rle = coco_mask.merge(coco_mask.frPyObjects(mask, *size))
        elif isinstance(mask, dict) and list(mask["size"]) == size:
            rle = coco_mask.frPyObjects(mask, *size) if isinstance(mask["counts"], list) else mask
        else:
            raise ValueError
        tight = [float(value) for value in coco_mask.toBbox(rle)]
        area = float(coco_mask.area(rle))
    except Exception as error:  # pycocotools raises nearly anything
        raise LabelError(
            f"{where} has no `segmentation` that is polygons or run lengths of its image", ADVICE
        ) from error
    if area == 0:
        raise LabelError(f"{where} has no pixel inside its image", ADVICE)
    box, stated = annotation.get("bbox"), annotation.get("area")
    return {
        "image_id": image["id"],
        "category_id": annotation["category_id"],
        "iscrowd": int(bool(annotation.get("iscrowd"))),
        "area": stated if isinstance(stated, int | float) and stated > 0 else area,
        "bbox": box if _near(box, tight) else tight,
        "segmentation": mask,
    }


def _near(box: Any, tight: list[float]) -> bool:
    """Whether a box is that around a mask, but for what rasterising it rounds."""
    numbers = isinstance(box, list) and len(box) == 4 and all(isinstance(value, int | float) for value in box)
    return numbers and all(abs(a - b) <= 2 for a, b in zip(box, tight, strict=True))
