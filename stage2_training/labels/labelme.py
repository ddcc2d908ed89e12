"""A folder of labelme files -> COCO JSON.

labelme writes one JSON file per image, anywhere in the folder:

    {"imagePath": "../images/a.jpg", "imageHeight": 480, "imageWidth": 640, "shapes": [
        {"label": "cat", "shape_type": "polygon", "points": [[x, y], ...], "group_id": null}, ...]}

- Objects are polygons, including rotated rectangles; rectangles (two opposite corners); circles (the centre and a
  point on the rim); and masks (the first and last pixel of a box, and its PNG in base64). Shapes of other kinds with
  four corners are polygons, too. Points and lines are left out, and a remark says how many.
- Shapes with the same label and `group_id` are parts of one object.
- Classes are the labels, without blanks around them, in alphabetical order. `__ignore__` is labelme's name for what is
  to be ignored: of every class, it becomes an object with `iscrowd` 1. `_background_` is no object.
- A file without shapes is an image without objects; an image without a file is not used.
"""

import base64
import io
import json
import os
from pathlib import Path, PureWindowsPath
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pycocotools import mask as coco_mask

from stage1_proposals.common.coco import stated_size
from stage1_proposals.common.errors import UserError
from stage1_proposals.common.image_paths import unicode_forms
from stage1_proposals.common.masks import Rle, Size, mask_fields, to_rle
from stage2_training.labels.conversion import Converted, LabelError, image_sizes, skip_malformed

CIRCLE_POINTS = 72  # the polygon deviates from the circle by a thousandth of the radius
KINDS = ("polygon", "oriented_rectangle", "rectangle", "circle", "mask")
WITHOUT_AREA = ("point", "points", "line", "linestrip")
CORNERS = 4  # of shapes of other kinds: `rotation` and `quadrilateral` of X-AnyLabeling, for one
IGNORED, BACKGROUND = "__ignore__", "_background_"


# A polygon (x, y, x, y, ...) or the run lengths of a mask.
Area = list[float] | Rle


class Shape(NamedTuple):
    """A labelled part of an image, or all of an object."""

    label: str
    group: Any
    area: Area


class LabelledImage(NamedTuple):
    """A labelme file's image and shapes."""

    size: Size
    shapes: list[Shape]


class LabelFile(NamedTuple):
    """A labelme file: what it holds, and where its image is."""

    path: Path
    document: dict[str, Any]
    image: Path


def convert_labelme(folder: Path, image_root: Path | None, skipped: list[str] | None = None) -> Converted:
    """Convert a folder of labelme files to a COCO instance dictionary.

    Args:
        image_root: folder of the images, which have the paths or the names that the files state; None: the images are
            where the files say.
        skipped: images that are missing or cannot be used, or whose file is malformed, are left out and noted here.

    Raises:
        UserError: there are no labelme files in the folder, or two label the same image; unless `skipped` is a list,
            an image is missing or cannot be used, or its file is malformed.
    """
    files = sorted(path for path in folder.rglob("*.json") if not path.name.startswith("."))
    if not files:
        raise UserError(f"{folder}: no labelme files in it (*.json)")
    root = image_root or folder
    read: dict[str, LabelFile] = {}
    for path in files:
        with skip_malformed(skipped):
            document = _read(path)
            image = _image(path, document.get("imagePath"), image_root)
            name = Path(os.path.relpath(image, root)).as_posix()
            if name in read:
                raise UserError(f"{path}: labels {image}, as {read[name].path} does; remove one of them")
            read[name] = LabelFile(path, document, image)
    sizes = image_sizes([file.image for file in read.values()])
    labelled: dict[str, LabelledImage] = {}
    without_area: list[str] = []
    for name, file in read.items():
        with skip_malformed(skipped):
            size = _checked_size(file, sizes[file.image])
            entries = enumerate(file.document["shapes"], 1)
            shapes = [_shape(file.path, number, entry, size, without_area) for number, entry in entries]
            labelled[name] = LabelledImage(size, [shape for shape in shapes if shape is not None])
    labels = {shape.label for image in labelled.values() for shape in image.shapes}
    classes = sorted(labels - {IGNORED, BACKGROUND})
    images, annotations = [], []
    for number, (name, found) in enumerate(sorted(labelled.items()), 1):
        height, width = found.size
        images.append({"id": number, "file_name": name, "height": height, "width": width})
        for label, parts in _objects(found.shapes):
            annotation = {"image_id": number, "iscrowd": int(label == IGNORED), **_annotate(parts, found.size)}
            of_classes = classes if label == IGNORED else [label] if label != BACKGROUND else []
            annotations += [{**annotation, "category_id": classes.index(name) + 1} for name in of_classes]
    categories = [{"id": number, "name": name} for number, name in enumerate(classes, 1)]
    remarks = []
    if without_area:
        count = len(without_area)
        remarks.append(f"{without_area[0]}: points and lines are left out, since they have no area; {count:,} in all")
    return Converted({"images": images, "annotations": annotations, "categories": categories}, root, remarks)


def _read(path: Path) -> dict[str, Any]:
    """Read a labelme file.

    Raises:
        LabelError: it is none.
    """
    try:
        document = json.loads(path.read_bytes())
    except OSError as error:
        raise LabelError(f"{path}: cannot be read ({error.strerror})", "repair it") from error
    except (ValueError, RecursionError) as error:
        raise _malformed(path, f"not JSON ({error})") from error
    if isinstance(document, dict) and all(isinstance(document.get(key), list) for key in ("images", "annotations")):
        raise LabelError(f"{path}: is COCO JSON, no labelme file", "name the file itself")
    if not isinstance(document, dict) or not isinstance(document.get("shapes"), list):
        raise _malformed(path, "not a labelme file, it has no list `shapes`")
    return document


def _checked_size(file: LabelFile, size: Size | LabelError) -> Size:
    """The size of a file's image, which is the one that the file states, if it does."""
    if isinstance(size, LabelError):
        raise size
    try:
        stated = stated_size(file.document, "imageHeight", "imageWidth")
    except ValueError as error:
        raise _malformed(file.path, str(error)) from error
    if stated not in (None, size):
        (height, width), (stated_height, stated_width) = size, stated
        what = f"is for {stated_width} x {stated_height} pixels, but {file.image} has {width} x {height} as displayed"
        raise _malformed(file.path, what)
    return size


def _image(path: Path, name: Any, image_root: Path | None) -> Path:
    """Where the image of a labelme file is; its name may be a Windows path."""
    if not isinstance(name, str) or not name:
        raise _malformed(path, "has no `imagePath`")
    relative = PureWindowsPath(name).as_posix()
    places = [path.parent / form for form in unicode_forms(relative)]
    if image_root is not None:
        parts = (relative, Path(relative).name)
        places = [*(image_root / form for part in parts for form in unicode_forms(part)), *places]
    for place in places:
        if place.is_file():
            return place
    raise LabelError(f"{places[0]} is missing: {path} labels it", "say where the images are with --data-root (ROOT=)")


def _shape(path: Path, number: int, entry: Any, size: Size, without_area: list[str]) -> Shape | None:
    """A file's shape, numbered from 1; None if it has no area, which is noted in `without_area`.

    Raises:
        LabelError: it has no label or no pixel, is of an unknown kind, or its points do not fit its kind.
    """
    where = f"shape {number}"
    label = entry.get("label") if isinstance(entry, dict) else None
    if not isinstance(label, str) or not label.strip():
        raise _malformed(path, f"{where} has no `label`")
    label = label.strip()
    where += f" ({label!r})"
    kind = entry.get("shape_type") or "polygon"
    if kind in WITHOUT_AREA:
        without_area.append(f"{path}, {where}")
        return None
    try:
        points = np.array(entry["points"], float).reshape(-1, 2)
        if kind not in KINDS and len(points) != CORNERS:
            raise _malformed(path, f"{where} is of the kind {kind!r}, which is not read")
        if not np.isfinite(points).all():
            raise ValueError("a coordinate is not finite")
        if kind in ("polygon", "oriented_rectangle") and len(points) < 3:
            raise ValueError(f"it has {len(points)} points")
        # Some programs write a rectangle as its four corners.
        if kind in ("circle", "mask", "rectangle") and len(points) != 2 and (kind, len(points)) != ("rectangle", 4):
            raise ValueError(f"it has {len(points)} points, not 2")
        area = _mask(points.round().astype(int), entry["mask"], size) if kind == "mask" else _polygon(kind, points)
        is_empty = not coco_mask.area(_rle(area, size))
        group = entry.get("group_id")
        hash(group)
    except (KeyError, TypeError, ValueError, OSError, SyntaxError) as error:
        raise _malformed(path, f"{where} is no {kind}: {error}") from error
    if is_empty:
        raise _malformed(path, f"{where} has no pixel inside its image")
    return Shape(label, group, area)


def _polygon(kind: str, points: NDArray[np.float64]) -> list[float]:
    """A shape's outline: x, y, x, y, ..."""
    if kind == "rectangle" and len(points) == 2:
        (x0, y0), (x1, y1) = points
        points = np.array([(x0, y0), (x1, y0), (x1, y1), (x0, y1)])
    if kind == "circle":
        centre, rim = points
        angles = np.linspace(0, 2 * np.pi, CIRCLE_POINTS, endpoint=False)
        points = centre + np.linalg.norm(rim - centre) * np.stack([np.cos(angles), np.sin(angles)], 1)
    return points.ravel().tolist()


def _mask(corners: NDArray[np.int_], png: str, size: Size) -> Rle:
    """A mask in its image, from the first and last pixel (x, y) of its box and the box's PNG in base64."""
    (x0, y0), (x1, y1) = corners
    with Image.open(io.BytesIO(base64.b64decode(png))) as image:
        inside = np.asarray(image).astype(bool)
    if inside.shape != (y1 - y0 + 1, x1 - x0 + 1):
        raise ValueError(f"its picture has {inside.shape[::-1]} pixels, its box ({x1 - x0 + 1}, {y1 - y0 + 1})")
    if x0 < 0 or y0 < 0 or y1 >= size[0] or x1 >= size[1]:
        raise ValueError("its box reaches over the image's edge")
    mask = np.zeros(size, np.uint8, order="F")
    mask[y0 : y1 + 1, x0 : x1 + 1] = inside
    return coco_mask.encode(mask)


def _objects(shapes: list[Shape]) -> list[tuple[str, list[Area]]]:
    """Labels and parts of the objects: shapes with the same label and group are one object."""
    objects: dict[Any, tuple[str, list[Area]]] = {}
    for number, shape in enumerate(shapes):
        key = number if shape.group is None else (shape.label, shape.group)
        objects.setdefault(key, (shape.label, []))[1].append(shape.area)
    return list(objects.values())


def _annotate(parts: list[Area], size: Size) -> dict[str, Any]:
    """A COCO annotation without its ids; polygons stay polygons, unless a part is a mask."""
    rle = coco_mask.merge([_rle(part, size) for part in parts])
    polygons = {"segmentation": parts} if all(isinstance(part, list) for part in parts) else {}
    return {**mask_fields(rle), **polygons}


def _rle(area: Area, size: Size) -> Rle:
    return to_rle([area] if isinstance(area, list) else area, size)


def _malformed(path: Path, what: str) -> LabelError:
    return LabelError(f"{path}: {what}", "correct it")
