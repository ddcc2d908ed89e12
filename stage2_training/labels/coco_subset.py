"""COCO with few labels: a share of train2017's images, drawn by a seed.

The layout is that of the published archives, unpacked side by side:

    train2017/*.jpg   val2017/*.jpg   annotations/instances_train2017.json   annotations/instances_val2017.json

Images are ranked by the SHA-256 of `SEED:ID`, and the first of them are the subset. So it is the same on any machine
and for any version of any library, and 5 % are a part of the 10 % of the same seed.
"""

import hashlib
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

from stage1_proposals.common.errors import UserError
from stage1_proposals.common.files import write_text
from stage2_training.labels.conversion import Coco, LabelError, check_count, info, leaving_out, to_json

SOURCE = "https://cocodataset.org/#download (2017 train and val images, 2017 train/val annotations)"
T = TypeVar("T")
COUNTS = {"train2017": 118_287, "val2017": 5_000, "unlabeled2017": 123_403}
SHARES = {"coco10": 0.10, "coco5": 0.05}


def rank(items: Iterable[T], seed: int, key: Callable[[T], Any] = lambda item: item) -> list[T]:
    """Items in the order of a draw, which depends on nothing but the seed and each one's key, an id or a name."""

    def place(item: T) -> bytes:
        return hashlib.sha256(f"{seed}:{key(item)}".encode(errors="replace")).digest()

    return sorted(items, key=place)


def draw(items: Iterable[T], share: float, seed: int) -> list[T]:
    """The share of ids or names that a seed draws, at least one."""
    ranked = rank(items, seed)
    return ranked[: max(1, round(share * len(ranked)))]


def write_subset(root: Path, name: str, seed: int, skipped: list[str] | None = None, partial: bool = False) -> Path:
    """Write `<root>/annotations/<name>.json`, and the ids of its images, one a line, to `<name>_ids.txt`.

    Args:
        root: folder of the four parts.
        name: one of `SHARES`.
        skipped: images whose image is not there are left out and noted here; the others stay as they were drawn.
        partial: take another number of images than train2017 and val2017 have, and note it in the JSON's `info`.

    Raises:
        UserError: something is missing, or has another number of images or images than published; of val2017 or,
            unless noted, of the subset an image is missing.
    """
    val = {image["file_name"] for image in _read(root, "val2017", partial)["images"]}
    missing = val - _image_names(root / "val2017")
    if missing:  # scores on fewer would compare with nothing
        raise UserError(f"{root / 'val2017' / min(missing)} is missing: get COCO at {SOURCE}")
    coco = _read(root, "train2017", partial)
    drawn = set(draw((image["id"] for image in coco["images"]), SHARES[name], seed))
    images = []
    there = _image_names(root / "train2017")
    for image in coco["images"]:
        if image["id"] in drawn:
            with leaving_out(skipped):
                if image["file_name"] not in there:
                    raise LabelError(f"{root / 'train2017' / image['file_name']} is missing", f"get COCO at {SOURCE}")
                images.append(image)
    ids = {image["id"] for image in images}
    subset = {
        "info": {
            **info(
                f"COCO train2017, {SHARES[name]:.0%} of its images",
                SOURCE,
                len(coco["images"]),
                COUNTS["train2017"],
                skipped,
            ),
            "subset": {"seed": seed, "images": len(images), "of": len(coco["images"])},
        },
        "images": images,
        "annotations": [annotation for annotation in coco["annotations"] if annotation["image_id"] in ids],
        "categories": coco["categories"],
    }
    write_text(ids_file(root, name), "".join(f"{number}\n" for number in sorted(ids)))
    return write_text(root / "annotations" / f"{name}.json", to_json(subset))


def ids_file(root: Path, name: str) -> Path:
    """Where the ids of a subset's images stand."""
    return root / "annotations" / f"{name}_ids.txt"


def unlabeled_images(root: Path) -> int | None:
    """How many images unlabeled2017, which stage 1 looks at, has; None where it is not."""
    folder = root / "unlabeled2017"
    return len(_image_names(folder)) if folder.is_dir() else None


def _read(root: Path, split: str, partial: bool) -> Coco:
    """A split's labels, once its images and images are counted."""
    path, folder = root / "annotations" / f"instances_{split}.json", root / split
    if not folder.is_dir():
        raise UserError(f"{folder} is missing: get COCO at {SOURCE} and unpack it into {root}")
    if not partial:
        check_count(folder, len(_image_names(folder)), COUNTS[split], SOURCE)
    try:
        coco = json.loads(path.read_bytes())
        for image in coco["images"]:
            image["id"], image["file_name"]
        coco["annotations"], coco["categories"]
    except FileNotFoundError as error:
        raise UserError(f"{path} is missing: get COCO at {SOURCE} and unpack it into {root}") from error
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror})") from error
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: not COCO's instance labels ({error}); unpack them anew") from error
    if not partial:
        check_count(path, len(coco["images"]), COUNTS[split], SOURCE)
    if not coco["images"]:
        raise UserError(f"{path}: has no images")
    return coco


def _image_names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if path.suffix == ".jpg" and not path.name.startswith(".")}
