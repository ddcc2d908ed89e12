"""A YOLO segmentation set, as Ultralytics trains on it -> COCO JSON.

A `data.yaml` names the classes and where the images are: folders, or text files with a path on each line.

    path: .                 # folder of what follows; default: that of data.yaml
    train: images/train
    val: images/val
    names: [cat, dog]       # or {0: cat, 1: dog}

The labels of `images/train/a.jpg` are in `labels/train/a.txt`, an object on each line: its class from 0, and the points
x y x y ... of one polygon, in fractions of the image's width and height.

- A line of five numbers is a box without a mask, and is refused. A line that is there twice is one object.
- An image without such a file is an image without objects, unless none has one.
"""

import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from stage1_proposals.common.errors import UserError, quoted
from stage1_proposals.common.files import decode_text
from stage1_proposals.common.image_paths import portable_path
from stage1_proposals.common.masks import Size, mask_fields, to_rle
from stage1_proposals.images.recognition import EXTENSIONS
from stage2_training.labels.conversion import Converted, LabelError, image_sizes, skip_malformed

BOX_NUMBERS = 5
MARK = "\ufeff"  # with which some programs of Windows begin a text
OUTSIDE = 0.1  # part of a side by which a point may lie outside its image


def convert_yolo(
    path: Path, image_root: Path | None, skipped: list[str] | None = None, split: str = "train"
) -> Converted:
    """Convert a split of a YOLO segmentation set to a COCO instance dictionary.

    Args:
        path: its `data.yaml`.
        image_root: what the paths in it are relative to, instead of what it says itself.
        split: `train` or `val`; a set without `val` has only the first.
        skipped: images that cannot be used, or whose labels are malformed, are left out and noted here.

    Raises:
        UserError: it is no such set, or none of its images is labelled; unless `skipped` is a list, an image cannot be
            used, or its labels are malformed.
    """
    document = _read(path)
    classes = _classes(path, document)
    root = image_root or _root(path, document)
    images = _images(path, document, root, split if document.get(split) else "train")
    label_files = {image: _label_file(image) for image in images}
    if not any(file.is_file() for file in label_files.values()):
        raise UserError(
            f"{path}: none of its {len(images):,} images has labels; {images[0]} has no {label_files[images[0]]}"
        )
    _check_apart(label_files)
    sizes = image_sizes(images)
    entries: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for image in images:
        with skip_malformed(skipped):
            size = sizes[image]
            if isinstance(size, LabelError):
                raise size
            number, (height, width) = len(entries) + 1, size
            annotations += [
                {"image_id": number, "iscrowd": 0, **one} for one in _objects(label_files[image], size, len(classes))
            ]
            name = Path(os.path.relpath(image, root)).as_posix()
            entries.append({"id": number, "file_name": name, "height": height, "width": width})
    categories = [{"id": number, "name": name} for number, name in enumerate(classes, 1)]
    return Converted({"images": entries, "annotations": annotations, "categories": categories}, root, [])


def _check_apart(label_files: Mapping[Path, Path]) -> None:
    """Check that no two images share a file of labels: the objects of one would count as those of the other, too."""
    image_of: dict[Path, Path] = {}
    for image, file in label_files.items():
        other = image_of.setdefault(file, image)
        if other != image and file.is_file():
            raise UserError(f"{file}: would label {other} and {image.name}; rename one of the images")


def has_validation(path: Path) -> bool:
    """Whether a `data.yaml` names other images to evaluate on than to train on."""
    document = _read(path)
    return bool(document.get("val")) and document["val"] != document["train"]


def _read(path: Path) -> dict[str, Any]:
    try:
        document = yaml.safe_load(path.read_bytes())
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise UserError(f"{path}: not YAML ({' '.join(str(error).split())[:200]})") from error
    if not isinstance(document, dict) or "names" not in document or not document.get("train"):
        raise UserError(f"{path}: not a YOLO set, which has `train` and `names`; correct the file")
    return document


def _classes(path: Path, document: Mapping[str, Any]) -> list[str]:
    """The names of the classes, without blanks around them, in order."""
    names = document["names"]
    if isinstance(names, dict):
        if sorted(names, key=str) != sorted(range(len(names)), key=str):
            raise UserError(f"{path}: `names` must have the numbers from 0 to {len(names) - 1}; correct the file")
        names = [names[number] for number in range(len(names))]
    if not isinstance(names, list) or not all(isinstance(name, str | int) for name in names):
        raise UserError(f"{path}: `names` must be a list of names, or names by number; correct the file")
    names = [str(name).strip() for name in names]
    for name in names:
        if not name or names.count(name) > 1:
            raise UserError(
                f"{path}: `names` has {quoted(name)} {names.count(name)} times; give each class its own name"
            )
    return names


def _root(path: Path, document: Mapping[str, Any]) -> Path:
    """What the paths in `data.yaml` are relative to: its `path` where that folder is, else its own folder."""
    stated = document.get("path")
    folder = path.parent / portable_path(str(stated)) if stated else path.parent
    return folder if folder.is_dir() else path.parent


def _images(path: Path, document: Mapping[str, Any], root: Path, split: str) -> list[Path]:
    """The images of a split, in order, each once."""
    entries = document[split]
    entries = entries if isinstance(entries, list) else [entries]
    images: dict[Path, None] = {}
    for entry in entries:
        place = _find(root, portable_path(str(entry)))
        if place is None:
            raise UserError(
                f"{path}: `{split}` names {quoted(str(entry))}, which is not in {root}; say where it is with "
                f"--data-root (ROOT=)"
            )
        images |= dict.fromkeys(_in_folder(place) if place.is_dir() else _in_list(place, root))
    if not images:
        raise UserError(f"{path}: no images in `{split}` ({quoted(str(document[split]))})")
    return list(images)


def _find(root: Path, entry: str) -> Path | None:
    """A folder or file; sets of Roboflow begin with `../` for the folder of `data.yaml` itself."""
    places = (root / entry, root / entry.removeprefix("../"))
    return next((place for place in places if place.exists()), None)


def _in_folder(folder: Path) -> Iterator[Path]:
    found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in EXTENSIONS)
    yield from (path for path in found if not path.name.startswith("."))


def _in_list(path: Path, root: Path) -> Iterator[Path]:
    """The images that a text file names, relative to its own folder or to the set's."""
    try:
        lines = decode_text(path.read_bytes()).removeprefix(MARK).splitlines()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error
    for line in filter(None, map(str.strip, lines)):
        name = portable_path(line)
        yield next((place for place in (path.parent / name, root / name) if place.exists()), path.parent / name)


def _label_file(image: Path) -> Path:
    """Where an image's labels are: the last folder `images` in its path is `labels`, if there is any."""
    parts = list(image.parts)
    for place in reversed(range(len(parts) - 1)):
        if parts[place] == "images":
            parts[place] = "labels"
            break
    return Path(*parts).with_suffix(".txt")


def _objects(path: Path, size: Size, classes: int) -> list[dict[str, Any]]:
    """The objects of a label file as COCO annotations, without ids.

    Raises:
        LabelError: it is malformed.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig", errors="replace").splitlines()
    except FileNotFoundError:
        return []
    except OSError as error:
        raise LabelError(f"{path}: cannot be read ({error.strerror})", "repair it") from error
    numbered = {line.strip(): number for number, line in reversed(list(enumerate(lines, 1))) if line.strip()}
    return [_object(path, number, line, size, classes) for line, number in reversed(numbered.items())]


def _object(path: Path, number: int, line: str, size: Size, classes: int) -> dict[str, Any]:
    def malformed(what: str) -> LabelError:
        return LabelError(f"{path}: line {number} {what}", "correct it")

    words = line.split()
    if len(words) == BOX_NUMBERS:
        raise malformed("is a box without a mask; export the labels as polygons")
    if not words[0].isdecimal() or int(words[0]) >= classes:
        raise malformed(f"has the class {quoted(words[0])}; there are 0 to {classes - 1}")
    try:
        values = [float(word) for word in words[1:]]
    except ValueError as error:
        raise malformed(f"is no class with points ({error})") from error
    if len(values) < 6 or len(values) % 2:
        raise malformed(f"has {len(values)} coordinates; a polygon has x and y of three or more points")
    outside = [value for value in values if not (math.isfinite(value) and -OUTSIDE <= value <= 1 + OUTSIDE)]
    if outside:
        raise malformed(f"has the coordinate {outside[0]:g}, which is no fraction of the image's width or height")
    height, width = size
    polygon = [value * (height if index % 2 else width) for index, value in enumerate(values)]
    fields = mask_fields(to_rle([polygon], size))
    if not fields["area"]:
        raise malformed("has no pixel inside its image")
    return {"category_id": int(words[0]) + 1, **fields, "segmentation": [polygon]}
