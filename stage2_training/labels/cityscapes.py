"""Cityscapes' fine annotations as published -> COCO JSON.

The layout is that of the published archives `leftImg8bit_trainvaltest.zip` and `gtFine_trainvaltest.zip`:

    leftImg8bit/train/aachen/aachen_000000_000019_leftImg8bit.png ...     images, 2,975 in train and 500 in val
    gtFine/train/aachen/aachen_000000_000019_gtFine_instanceIds.png ...   a number for each pixel, 16 bits

A number of 1000 or more is class * 1000 + the object's number. A smaller number is a class alone: of a class that has
objects, it marks a group of them and becomes `iscrowd` 1. Objects are in the order of their numbers.
"""

import os
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from pycocotools import mask as coco_mask
from tqdm import tqdm

from stage1_proposals.common.errors import UserError
from stage1_proposals.common.files import write_text
from stage1_proposals.common.masks import Size, mask_fields
from stage2_training.labels.conversion import (
    Coco,
    LabelError,
    check_count,
    image_size,
    info,
    numbered,
    skip_malformed,
    to_json,
)

SOURCE = "https://www.cityscapes-dataset.com/downloads (leftImg8bit_trainvaltest.zip, gtFine_trainvaltest.zip)"
COUNTS = {"train": 2975, "val": 500}
# Those that have objects are the last of all 34 classes.
CLASSES = {
    24: "person",
    25: "rider",
    26: "car",
    27: "truck",
    28: "bus",
    31: "train",
    32: "motorcycle",
    33: "bicycle",
}
# The size (height, width) of an instance map, and the COCO annotations of its objects, without ids.
Label = tuple[Size, list[dict[str, Any]]]
_IMAGE, _LABEL = "_leftImg8bit.png", "_gtFine_instanceIds.png"
_IMAGES_PER_PROCESS = 16  # fewer are not worth a process


def convert_cityscapes(root: Path, split: str, skipped: list[str] | None = None, expected: int | None = None) -> Coco:
    """Convert a split of Cityscapes, `train` or `val`, to a COCO instance dictionary.

    Images are numbered from 1 by city and name, `file_name` is relative to `root`, categories have Cityscapes' ids,
    masks are run lengths.

    Args:
        skipped: images whose label is missing or malformed, or that cannot be read, are left out and noted here.
        expected: number of images in the published split; another number is noted in the JSON's `info`.

    Raises:
        UserError: a folder is missing or has no images; unless `skipped` is a list, a label is missing or malformed,
            or an image cannot be read.
    """
    paths = images_of(root, split)
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number, (path, label) in enumerate(zip(paths, _read_all(root, paths), strict=True), 1):
        with skip_malformed(skipped):
            if isinstance(label, LabelError):
                raise label
            (height, width), objects = label
            name = path.relative_to(root).as_posix()
            images.append({"id": number, "file_name": name, "width": width, "height": height})
            annotations += [{"image_id": number, **annotation} for annotation in objects]
    return {
        "info": info(f"Cityscapes fine annotations, {split}", SOURCE, len(paths), expected, skipped),
        "images": images,
        "annotations": numbered(annotations),
        "categories": [{"id": number, "name": name} for number, name in CLASSES.items()],
    }


def write_annotations(root: Path, split: str, skipped: list[str] | None = None, expected: int | None = None) -> Path:
    """Convert a split into `<root>/annotations/<split>.json`, as `convert_cityscapes`."""
    coco = convert_cityscapes(root, split, skipped, expected)
    return write_text(root / "annotations" / f"{split}.json", to_json(coco))


def check_complete(root: Path, split: str, count: int) -> None:
    """Check that a split has `count` images.

    Raises:
        UserError: it has another number, or a folder is missing.
    """
    check_count(root / "leftImg8bit" / split, len(images_of(root, split)), count, SOURCE)


def images_of(root: Path, split: str) -> list[Path]:
    """The images of a split, by city and name.

    Raises:
        UserError: the images' or the labels' folder is missing, or there are no images.
    """
    for folder in (root / "leftImg8bit" / split, root / "gtFine" / split):
        if not folder.is_dir():
            raise UserError(f"{folder} is missing: get Cityscapes at {SOURCE} and unpack it into {root}")
    images = sorted((root / "leftImg8bit" / split).glob(f"*/[!.]*{_IMAGE}"))
    if not images:
        raise UserError(f"{root / 'leftImg8bit' / split} holds no CITY/*{_IMAGE}: unpack Cityscapes into {root}")
    return images


def read_objects(path: Path) -> Label:
    """The size (height, width) of an instance map, and the COCO annotations of its objects, without ids.

    Raises:
        LabelError: it is missing, cannot be read, or is no instance map.
    """
    try:
        with Image.open(path) as image:
            numbers = np.asfortranarray(image)
    except FileNotFoundError as error:
        raise LabelError(f"{path} is missing", "unpack gtFine again") from error
    except (OSError, SyntaxError, ValueError) as error:
        raise LabelError(f"{path} cannot be read as an image: {error}", "unpack gtFine again") from error
    if numbers.ndim != 2 or numbers.dtype.kind not in "iu" or numbers.min() < 0 or numbers.max() >= 2**16:
        raise LabelError(f"{path} is no map of instance numbers", "unpack gtFine again")
    objects = []
    for number in np.flatnonzero(np.bincount(numbers.ravel(order="K"))).tolist():
        category = number // 1000 if number >= 1000 else number
        if category > max(CLASSES) or (number >= 1000 and category < min(CLASSES)):  # cut to 8 bits, 26001 is 145
            raise LabelError(
                f"{path} is no map of instance numbers: it has the number {number}, which no class has; it has "
                f"{8 * numbers.itemsize} bits, and should have 16",
                "unpack gtFine again",
            )
        if category not in CLASSES:
            continue
        rle = coco_mask.encode((numbers == number).view(np.uint8))
        objects.append({"category_id": category, "iscrowd": int(number < 1000), **mask_fields(rle)})
    return numbers.shape, objects


def _read_label(root: Path, path: Path) -> Label | LabelError:
    """`read_objects` of an image's label; an error is returned, so that the other images can go on."""
    label = root / "gtFine" / path.relative_to(root / "leftImg8bit").with_name(path.name.replace(_IMAGE, _LABEL))
    try:
        height, width = image_size(path)
        size, objects = read_objects(label)
        if size != (height, width):
            raise LabelError(
                f"{label} is {size[1]} x {size[0]} pixels, but its image {width} x {height}", "unpack both again"
            )
    except LabelError as error:
        return error
    return size, objects


def _read_all(root: Path, images: list[Path]) -> Iterator[Label | LabelError]:
    """Read all labels, in several processes if there are many, with a progress bar."""
    processes = min(len(os.sched_getaffinity(0)), len(images) // _IMAGES_PER_PROCESS)
    read = partial(_read_label, root)
    with ExitStack() as stack:
        if processes > 1:
            results = stack.enter_context(ProcessPoolExecutor(processes)).map(read, images, chunksize=4)
        else:
            results = map(read, images)
        yield from tqdm(
            results, desc="Cityscapes", unit="image", total=len(images), disable=len(images) < _IMAGES_PER_PROCESS
        )
