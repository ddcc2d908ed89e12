"""The annotation files that a config names: are they there, and do they hold what is to be learned?"""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmengine.config import Config

from stage1_proposals.common.errors import UserError


def check_annotations(config: Config, parts: Sequence[str]) -> None:
    """Check that the annotation files of a config's `train`, `val` or `test` part exist and have its classes.

    They must have images, too, and for training at least one object of the classes that is not a crowd.

    Raises:
        UserError: naming the first that does not.
    """
    for part in parts:
        dataset = config[f"{part}_dataloader"].dataset
        path = annotation_file(dataset)
        try:
            coco = json.loads(path.read_text(encoding="utf-8"))
            categories = {category["id"]: category["name"] for category in coco["categories"]}
            images = {image["id"] for image in coco["images"]}
            objects = {
                categories.get(annotation["category_id"])
                for annotation in coco["annotations"]
                if annotation["image_id"] in images and not annotation.get("iscrowd")
            }
        except FileNotFoundError as error:
            raise UserError(
                f"{path}: no such file; `make data` makes it, or say where it is with --data-root"
            ) from error
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(f"{path}: not COCO JSON with images, annotations and categories ({error})") from error
        classes, there = dataset.metainfo["classes"], ", ".join(map(repr, categories.values()))
        unknown = [name for name in classes if name not in categories.values()]
        if unknown:
            raise UserError(f"{path}: has no category {unknown[0]!r}; it has {there}")
        # By their order in the file MMDetection numbers them, for each file anew.
        order = [name for name in categories.values() if name in classes]
        for found, expected in zip(order, [*classes, None], strict=False):
            if found != expected:
                raise UserError(
                    f"{path}: has {found!r} where the dataset's classes have {expected!r}; give them as the file does"
                )
        if not images:
            raise UserError(f"{path}: has no images")
        if part == "train" and objects.isdisjoint(classes):
            raise UserError(
                f"{path}: nothing to train on; its images have no object of {', '.join(map(repr, classes))}"
            )


def image_count(dataset: Any) -> int | None:
    """Images in the annotation file of a dataset's config; None when it cannot be read."""
    try:
        return len(json.loads(annotation_file(dataset).read_text(encoding="utf-8"))["images"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def label_hashes(config: Config) -> dict[str, str | None]:
    """The head of the SHA-256 of a config's annotation files, `train` and `val`; None of one that cannot be read."""
    hashes: dict[str, str | None] = {}
    for part in ("train", "val"):
        try:
            labels = annotation_file(config[f"{part}_dataloader"].dataset).read_bytes()
            hashes[part] = hashlib.sha256(labels).hexdigest()[:16]
        except (OSError, AttributeError):  # what is missing is said elsewhere
            hashes[part] = None
    return hashes


def annotation_file(dataset: Any) -> Path:
    """Of a dataset's config."""
    return Path(dataset.data_root) / dataset.ann_file
