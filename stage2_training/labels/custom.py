"""A labelled set of the user's own: from COCO JSON or labelme files to a dataset fragment, with no code.

Both halves, training and test, are written as COCO JSON to `data/own/NAME-HASH/`, the hash being that of what they
hold. So other labels, or the same divided otherwise, are other files, and a run goes on with those it began with.
Images stay where they are.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stage1_proposals.common.drawing import palette
from stage1_proposals.common.errors import UserError
from stage1_proposals.common.files import write_text
from stage2_training.labels.coco import read_coco
from stage2_training.labels.coco_subset import draw
from stage2_training.labels.conversion import Coco, numbered, to_json
from stage2_training.labels.labelme import convert_labelme

WRITTEN = Path("data/own")
TEST_SHARE = 0.2
EPOCHS = 48  # as on a tenth of COCO


@dataclass(frozen=True)
class CustomDatasetOptions:
    """What a command line says of a set of the user's own.

    Attributes:
        test_labels: COCO JSON or labelme folder to evaluate on; None: a fifth of the images is held out for it.
        classes: names of those to use; none: all.
        held_out_seed: which images are held out.
        skip_malformed: leave out images whose labels are missing or malformed.
    """

    test_labels: str | None = None
    classes: Sequence[str] = ()
    held_out_seed: int = 0
    skip_malformed: bool = False


@dataclass(frozen=True)
class CustomDataset:
    """A set that is ready for training.

    Attributes:
        train, test: COCO JSON files.
        train_images, test_images: folders of their images.
        classes: names, in the order of both files.
        remarks: what the user should know, one line each.
    """

    train: Path
    test: Path
    train_images: Path
    test_images: Path
    classes: tuple[str, ...]
    remarks: tuple[str, ...]


def is_custom(dataset: str) -> bool:
    """Whether a dataset is named by its labels: a JSON file or a folder."""
    return dataset.endswith(".json") or Path(dataset).is_dir()


def name_of(dataset: str) -> str:
    """A dataset's name, for folders named after it."""
    return Path(dataset).resolve().stem


def prepare(dataset: str, data_root: str | None = None, choices: CustomDatasetOptions | None = None) -> CustomDataset:
    """Check a set, divide it and write it as COCO JSON.

    Args:
        dataset: COCO JSON, or folder of labelme files.
        data_root: folder of the images; None: where the labels say.

    Raises:
        UserError: as `read_coco` and `convert_labelme`; no such class; too few images to hold any out.
    """
    choices = choices or CustomDatasetOptions()
    skipped: list[str] | None = [] if choices.skip_malformed else None
    train, train_images = _read(dataset, data_root, skipped)
    known = [category["name"] for category in train["categories"]]
    classes = tuple(name for name in known if name in choices.classes) if choices.classes else tuple(known)
    for name in choices.classes:
        if name not in known:
            raise UserError(f"--classes {name}: {dataset} has no such class; it has {', '.join(known)}")
    if not classes:
        raise UserError(f"{dataset}: has no classes")
    if choices.test_labels is None:
        test, test_images = train, train_images
        train, test, remark = _divided(dataset, train, choices.held_out_seed)
        remarks = [remark]
    else:
        test, test_images = train, train_images
        if Path(choices.test_labels).resolve() != Path(dataset).resolve():
            test, test_images = _read(choices.test_labels, data_root, skipped)
        remarks = _shared(dataset, train, train_images, test, test_images)
        unknown = {category["name"] for category in test["categories"]} - set(known)
        if unknown:
            remarks.append(f"{choices.test_labels}: {', '.join(sorted(unknown))}: no class of {dataset}, not evaluated")
    remarks += [f"left out: {what}" for what in skipped or ()]
    texts = {
        half: to_json(_of_classes(coco, train["categories"], classes) | {"info": _info(half, skipped)})
        for half, coco in (("train", train), ("test", test))
    }
    digest = hashlib.sha256("".join(texts.values()).encode()).hexdigest()[:8]
    folder = WRITTEN / f"{name_of(dataset)}-{digest}"
    for half, text in texts.items():
        write_text(folder / f"{half}.json", text)
    return CustomDataset(
        folder / "train.json",
        folder / "test.json",
        train_images,
        test_images,
        classes,
        tuple(remarks),
    )


def fragment(own: CustomDataset) -> dict[str, Any]:
    """The set as `configs/datasets/*.py` would have it."""

    metainfo = {"classes": own.classes, "palette": palette(len(own.classes))}

    def loader(labels: Path, image_root: Path, **more: Any) -> dict[str, Any]:
        # An absolute `ann_file`, so that `data_root` is of the images alone.
        where = {
            "data_root": str(image_root.absolute()),
            "ann_file": str(labels.absolute()),
            "data_prefix": {"img": ""},
        }
        return {"dataset": {"type": "CocoDataset", **where, "metainfo": metainfo, **more}}

    return {
        "train_cfg": {"max_epochs": EPOCHS},
        "train_dataloader": loader(own.train, own.train_images, filter_cfg={"filter_empty_gt": True}),
        "val_dataloader": loader(own.test, own.test_images, test_mode=True),
        "val_evaluator": {"type": "MaskAP"},
    }


def _read(labels: str, data_root: str | None, skipped: list[str] | None) -> tuple[Coco, Path]:
    path, image_root = Path(labels), Path(data_root) if data_root else None
    if image_root is not None and not image_root.is_dir():
        raise UserError(f"--data-root {image_root}: no such folder")
    return convert_labelme(path, image_root, skipped) if path.is_dir() else read_coco(path, image_root, skipped)


def _divided(dataset: str, coco: Coco, seed: int) -> tuple[Coco, Coco, str]:
    """Training and test half; an image's name alone decides, and the seed, which half it is nearer to."""
    names = [image["file_name"] for image in coco["images"]]
    if len(names) < 2:
        raise UserError(f"{dataset}: {len(names)} images are too few to hold out any: give --test-labels")
    held_out = set(draw(names, TEST_SHARE, seed))
    halves = []
    for inside in (False, True):
        images = [image for image in coco["images"] if (image["file_name"] in held_out) == inside]
        ids = {image["id"] for image in images}
        annotations = [annotation for annotation in coco["annotations"] if annotation["image_id"] in ids]
        halves.append({**coco, "images": images, "annotations": annotations})
    remark = f"{len(held_out):,} of {len(names):,} images are held out for evaluation (--held-out-seed {seed})"
    return halves[0], halves[1], remark


def _shared(dataset: str, train: Coco, train_images: Path, test: Coco, test_images: Path) -> list[str]:
    """A remark, if images are in both halves."""
    there = {(train_images / image["file_name"]).resolve() for image in train["images"]}
    both = sum((test_images / image["file_name"]).resolve() in there for image in test["images"])
    return [f"{both:,} of the {len(test['images']):,} test images are among those of {dataset}"] if both else []


def _of_classes(coco: Coco, categories: list[dict[str, Any]], classes: Sequence[str]) -> Coco:
    """A set with these classes alone, in this order and with the ids they have in `categories`."""
    kept = [category for category in categories if category["name"] in classes]
    ids = {category["name"]: category["id"] for category in kept}
    names = {category["id"]: category["name"] for category in coco["categories"]}
    annotations = [
        {**annotation, "category_id": ids[names[annotation["category_id"]]]}
        for annotation in coco["annotations"]
        if names[annotation["category_id"]] in ids
    ]
    return {"images": coco["images"], "annotations": numbered(annotations), "categories": kept}


def _info(half: str, skipped: list[str] | None) -> dict[str, Any]:
    return {"description": f"labels of one's own, {half}", **({"skipped": skipped} if skipped else {})}
