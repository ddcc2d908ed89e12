"""The annotation files that a config names: where they are, whether they can be used, and their hashes."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmengine.config import Config

from stage1_proposals.common.coco import CocoDocument, read_coco
from stage1_proposals.common.errors import UserError

UNREADABLE = (OSError, ValueError, LookupError, TypeError, AttributeError)  # labels that are none


def check_annotations(config: Config, parts: Sequence[str]) -> None:
    """Check that the annotation files of a config's `train`, `val` or `test` part exist and have its classes.

    They must also have images, and at least one object of the classes that is not a crowd. Every object is read.

    Raises:
        UserError: naming the first file that does not, and what it lacks or which object is malformed.
    """
    for part in parts:
        dataset = config[f"{part}_dataloader"].dataset
        path = annotation_file(dataset)
        if not path.exists():
            raise UserError(f"{path}: no such file; `make data` makes it, or say where it is with --data-root")
        document = read_coco(path, ignore_unknown_images=True, text_ids=True)
        classes = dataset.metainfo["classes"]
        _check_classes(document, classes)
        if not document.images:
            raise UserError(f"{path}: has no images")
        if part == "train":
            _check_image_ids(document)
        if not _has_object(document, classes):
            purpose = "train" if part == "train" else "evaluate"
            names = ", ".join(map(repr, classes))
            raise UserError(f"{path}: nothing to {purpose} on; its images have no object of {names}")


def _check_classes(document: CocoDocument, classes: Sequence[str]) -> None:
    """Check that the file has these classes, in this order: MMDetection numbers them by their order in each file."""
    names = list(document.categories.values())
    unknown = [name for name in classes if name not in names]
    if unknown:
        raise UserError(f"{document.path}: has no category {unknown[0]!r}; it has {', '.join(map(repr, names))}")
    in_file = [name for name in names if name in classes]
    for name, expected in zip(in_file, classes, strict=True):
        if name != expected:
            raise UserError(
                f"{document.path}: has {name!r} where the dataset's classes have {expected!r}; "
                "give them as the file does"
            )


def _check_image_ids(document: CocoDocument) -> None:
    """Refuse numbers written as text in one place only: `read_coco` matches them, MMDetection's data sets do not."""
    for image in document.images:
        for row in document.rows[image.id]:
            if (image_id := document.content["annotations"][row]["image_id"]) != image.id:
                raise UserError(
                    f"{document.path}: annotations[{row}] has the `image_id` {image_id!r} and its image the `id` "
                    f"{image.id!r}; write both as numbers"
                )


def _has_object(document: CocoDocument, classes: Sequence[str]) -> bool:
    ids = {number for number, name in document.categories.items() if name in classes}
    # A sum, because `any` would stop at the first: reading an object checks it, and each is to be checked.
    return sum(one.category_id in ids and not one.iscrowd for one in document.annotations()) > 0


def label_hashes(config: Config) -> dict[str, str | None]:
    """The first 16 digits of the SHA-256 of a config's `train` and `val` annotation files; None if unreadable."""
    hashes: dict[str, str | None] = {}
    for part in ("train", "val"):
        try:
            labels = annotation_file(config[f"{part}_dataloader"].dataset).read_bytes()
            hashes[part] = hashlib.sha256(labels).hexdigest()[:16]
        except (OSError, AttributeError):  # `check_annotations` reports a missing file
            hashes[part] = None
    return hashes


def annotation_file(dataset: Any) -> Path:
    """The annotation file of a dataset's config."""
    return Path(dataset.data_root) / dataset.ann_file


def read_labels(dataset: Any) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The images of a dataset's config, and their objects of its classes, without crowds.

    Raises:
        One of `UNREADABLE`.
    """
    content = json.loads(annotation_file(dataset).read_bytes())
    classes = {each["id"] for each in content["categories"] if each["name"] in dataset.metainfo["classes"]}
    places = dataset.get("indices")
    images = content["images"] if places is None else [content["images"][place] for place in places]
    ids = {each["id"] for each in images}
    objects = [
        each
        for each in content["annotations"]
        if each["category_id"] in classes and not each.get("iscrowd") and each["image_id"] in ids
    ]
    return images, objects
