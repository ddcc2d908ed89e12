"""COCO with few labels: a share of train2017's images, drawn by a seed.

The layout is that of the published archives, unpacked side by side:

    train2017/*.jpg   val2017/*.jpg   annotations/instances_train2017.json   annotations/instances_val2017.json

Images are ranked by the SHA-256 of `SEED:ID`, and the subset is the first of them. It is therefore the same on every
machine and with every version of a library, and the 5 % are part of the 10 % of the same seed.
"""

import hashlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

from stage1_proposals.common.coco import CocoDocument, read_coco
from stage1_proposals.common.errors import UserError
from stage1_proposals.common.files import write_text
from stage2_training.labels.conversion import LabelError, check_count, image_sizes, info, skip_malformed, to_json

SOURCE = "https://cocodataset.org/#download (2017 train and val images, 2017 train/val annotations)"
T = TypeVar("T")
COUNTS = {"train2017": 118_287, "val2017": 5_000, "unlabeled2017": 123_403}
SHARES = {"coco10": 0.10, "coco5": 0.05}


def rank_by_seed(items: Iterable[T], seed: int, key: Callable[[T], Any] = lambda item: item) -> list[T]:
    """Items in a random order, which depends on the seed and on each item's key (an id or a name) alone."""

    def digest(item: T) -> bytes:
        return hashlib.sha256(f"{seed}:{key(item)}".encode(errors="replace")).digest()

    return sorted(items, key=digest)


def draw_share(items: Iterable[T], share: float, seed: int) -> list[T]:
    """A random share of ids or names, at least one."""
    ranked = rank_by_seed(items, seed)
    return ranked[: max(1, round(share * len(ranked)))]


def write_subset(root: Path, name: str, seed: int, skipped: list[str] | None = None, partial: bool = False) -> Path:
    """Write `<root>/annotations/<name>.json`, and the ids of its images, one a line, to `<name>_ids.txt`.

    Args:
        root: folder of the four parts.
        name: one of `SHARES`.
        skipped: images of the subset that are missing or cannot be decoded are left out and noted here; no others are
            drawn for them.
        partial: accept train2017 and val2017 with other numbers of images, and note it in the JSON's `info`.

    Raises:
        UserError: a part is missing or has not the published number of images; an image of val2017 is missing or
            cannot be decoded or, unless `skipped` is a list, one of the subset.
    """
    val = {image.file_name for image in _read(root, "val2017", partial).images}
    missing = val - _image_names(root / "val2017")
    if missing:  # scores on fewer images could not be compared with published ones
        raise UserError(f"{root / 'val2017' / min(missing)} is missing: get COCO at {SOURCE}")
    for size in image_sizes([root / "val2017" / name for name in sorted(val)]).values():
        if isinstance(size, LabelError):
            raise size
    train = _read(root, "train2017", partial)
    drawn = set(draw_share((image.id for image in train.images), SHARES[name], seed))
    images = []
    existing = _image_names(root / "train2017")
    chosen = [image for image in train.content["images"] if image["id"] in drawn]
    folder = root / "train2017"
    sizes = image_sizes([folder / image["file_name"] for image in chosen if image["file_name"] in existing])
    for image in chosen:
        path = folder / image["file_name"]
        with skip_malformed(skipped):
            if path not in sizes:
                raise LabelError(f"{path} is missing", f"get COCO at {SOURCE}")
            if isinstance(size := sizes[path], LabelError):
                raise size
            images.append(image)
    ids = {image["id"] for image in images}
    subset = {
        "info": {
            **info(
                f"COCO train2017, {SHARES[name]:.0%} of its images",
                SOURCE,
                len(train.images),
                COUNTS["train2017"],
                skipped,
            ),
            "subset": {"seed": seed, "images": len(images), "of": len(train.images)},
        },
        "images": images,
        "annotations": [annotation for annotation in train.content["annotations"] if annotation["image_id"] in ids],
        "categories": train.content["categories"],
    }
    write_text(ids_file(root, name), "".join(f"{number}\n" for number in sorted(ids)))
    return write_text(root / "annotations" / f"{name}.json", to_json(subset))


def ids_file(root: Path, name: str) -> Path:
    """The file with the ids of a subset's images."""
    return root / "annotations" / f"{name}_ids.txt"


def unlabeled_images(root: Path) -> int | None:
    """Number of images in unlabeled2017, which stage 1 uses; None if the folder is missing."""
    folder = root / "unlabeled2017"
    return len(_image_names(folder)) if folder.is_dir() else None


def _read(root: Path, split: str, partial: bool) -> CocoDocument:
    """A split's labels, once its images are counted in the folder and in the labels."""
    path, folder = root / "annotations" / f"instances_{split}.json", root / split
    for part in (folder, path):
        if not part.exists():
            raise UserError(f"{part} is missing: get COCO at {SOURCE} and unpack it into {root}")
    if not partial:
        check_count(folder, len(_image_names(folder)), COUNTS[split], SOURCE)
    document = read_coco(path)
    if not partial:
        check_count(path, len(document.images), COUNTS[split], SOURCE)
    if not document.images:
        raise UserError(f"{path}: has no images")
    return document


def _image_names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if path.suffix == ".jpg" and not path.name.startswith(".")}
