"""The user's own labelled set: from COCO JSON, labelme files or a YOLO set to a dataset config.

Both splits, training and test, are written as COCO JSON to `data/own/NAME-HASH/`, where the hash is that of their
content. Other labels, or another division, are other files, so a run goes on with the labels that it began with.
Images stay where they are.
"""

import hashlib
import json
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt

from stage1_proposals.common.coco import read_images
from stage1_proposals.common.errors import UserError, quoted
from stage1_proposals.common.files import write_text
from stage2_training.labels.coco import convert_coco
from stage2_training.labels.coco_subset import draw_share
from stage2_training.labels.conversion import Coco, Converted, numbered, to_json
from stage2_training.labels.labelme import convert_labelme
from stage2_training.labels.yolo import convert_yolo, has_validation

YOLO_FILE, YOLO_SUFFIXES = "data.yaml", (".yaml", ".yml")
WRITTEN = Path("data/own")
TEST_SHARE = 0.2
MOST_SHOWN = 20  # images left out of which each has a line


class CustomDatasetOptions(BaseModel):
    """How to divide and read a custom dataset."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    test_labels: str | None = Field(
        default=None,
        description="Labels to evaluate on, instead of a YOLO set's `val` or a held-out fifth of the images.",
        json_schema_extra={"metavar": "LABELS"},
    )
    classes: Sequence[str] = Field(
        default=(), description="Names of the classes to use. Default: all.", json_schema_extra={"metavar": "NAME"}
    )
    held_out_seed: NonNegativeInt = Field(default=0, description="Decides which images are held out.")
    skip_malformed: bool = Field(
        default=False, description="Leave out images that are missing or whose labels are missing or malformed."
    )


@dataclass(frozen=True)
class CustomDataset:
    """A custom dataset that is ready for training.

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


@dataclass(frozen=True)
class _Splits:
    """Training and test split, each with the folder of its images; and whether they were divided here."""

    train: Coco
    train_images: Path
    test: Coco
    test_images: Path
    remarks: list[str] = field(default_factory=list)
    is_divided: bool = False


def is_custom(dataset: str) -> bool:
    """Whether a dataset is named by its labels: a JSON or YAML file, or a folder."""
    return dataset.endswith((".json", *YOLO_SUFFIXES)) or Path(dataset).is_dir()


def name_of(dataset: str) -> str:
    """A dataset's name, for folders named after it; of a YOLO set, that of its folder."""
    path = Path(dataset).resolve()
    return path.parent.name if path.name == YOLO_FILE else path.stem


def _yolo_file(labels: str) -> Path | None:
    """The `data.yaml` that labels name, itself or by its folder; None if they are no YOLO set."""
    path = Path(labels)
    if path.is_dir():
        path /= YOLO_FILE
        return path if path.is_file() else None
    return path if path.suffix in YOLO_SUFFIXES else None


def left_out(reasons: Sequence[str]) -> list[str]:
    """A line for each of the first reasons why images were left out and, if there are more, how many there are."""
    lines = [f"left out: {reason}" for reason in reasons[:MOST_SHOWN]]
    return lines if len(reasons) <= MOST_SHOWN else [*lines, f"left out: {len(reasons):,} images in all"]


def count_ignored(annotations: Sequence[dict[str, Any]]) -> int:
    """How many regions are ignored; one that is ignored for every class has an annotation of each."""
    return len({(one["image_id"], json.dumps(one["segmentation"])) for one in annotations if one["iscrowd"]})


def prepare(
    dataset: str,
    data_root: str | None = None,
    options: CustomDatasetOptions | None = None,
    for_training: bool = False,
) -> CustomDataset:
    """Check a custom dataset, divide it and write it as COCO JSON.

    Args:
        dataset: COCO JSON, folder of labelme files, or a YOLO set: its `data.yaml` or its folder.
        data_root: folder of the images; None: where the labels say.
        for_training: whether the training split needs an object even if test labels are given; an evaluation uses
            its classes alone.

    Raises:
        UserError: as `convert_coco`, `convert_labelme` and `convert_yolo`; a name is no Unicode text; a class is
            unknown; there are too few images to hold any out; the test split, or that which is left of divided labels,
            has no object of the classes.
    """
    options = options or CustomDatasetOptions()
    skipped: list[str] | None = [] if options.skip_malformed else None
    labels, images, remarks = _read(dataset, data_root, skipped)
    categories = labels["categories"]
    classes = _chosen_classes(dataset, [category["name"] for category in categories], options.classes)
    remarks += _alike_classes(dataset, classes)
    splits = _divide(dataset, labels, images, data_root, options, skipped)
    _check_objects(dataset, splits, classes, options, for_training)
    # File names may hold bytes that are no text.
    notes = [what.encode(errors="backslashreplace").decode() for what in skipped or ()]
    info = {"skipped": notes} if notes else {}
    texts = {
        split: to_json(
            _only_classes(coco, categories, classes) | {"info": {"description": f"custom dataset, {split}", **info}}
        )
        for split, coco in (("train", splits.train), ("test", splits.test))
    }
    digest = hashlib.sha256("".join(texts.values()).encode()).hexdigest()[:8]
    folder = WRITTEN / f"{name_of(dataset)}-{digest}"
    for split, text in texts.items():
        write_text(folder / f"{split}.json", text)
    return CustomDataset(
        folder / "train.json",
        folder / "test.json",
        splits.train_images,
        splits.test_images,
        classes,
        tuple(remarks + splits.remarks + left_out(notes)),
    )


def _read(labels: str, data_root: str | None, skipped: list[str] | None, split: str = "train") -> Converted:
    """Labels as COCO JSON; of a YOLO set, those of this split."""
    path, image_root = Path(labels), Path(data_root) if data_root else None
    if image_root is not None and not image_root.is_dir():
        raise UserError(f"--data-root {image_root}: no such folder")
    yolo = _yolo_file(labels)
    if yolo is not None:
        converted = convert_yolo(yolo, image_root, skipped, split)
    else:
        converted = (convert_labelme if path.is_dir() else convert_coco)(path, image_root, skipped)
    _check_names(labels, converted.coco)
    return converted


def labelled_images(labels: str, image_root: Path) -> tuple[list[str], list[str]]:
    """The images that labels are of, whether they have objects or not.

    Args:
        labels: COCO JSON, a folder of labelme files, or a YOLO set, of which both splits count.
        image_root: folder of the images.

    Returns:
        Their paths, and why others were left out. Paths in `image_root` are relative to it; others are as COCO JSON
        has them, or absolute.

    Raises:
        UserError: the labels cannot be read.
    """
    skipped: list[str] = []
    yolo = _yolo_file(labels)
    if yolo is not None:
        parts = [convert_yolo(yolo, None, skipped, split) for split in ("train", "val")]
    elif Path(labels).is_dir():
        parts = [convert_labelme(Path(labels), image_root, skipped)]
    else:
        return [image.file_name for image in read_images(labels)], []
    root, paths = image_root.resolve(), dict[str, None]()
    for part in parts:
        for image in part.coco["images"]:
            path = part.images / image["file_name"]
            path = path.parent.resolve() / path.name
            paths[str(path.relative_to(root) if path.is_relative_to(root) else path)] = None
    return list(paths), left_out(list(dict.fromkeys(skipped)))


def _check_names(labels: str, coco: Coco) -> None:
    """Check that names can be written as UTF-8: JSON can hold half of a surrogate pair, and a file name any bytes."""
    names = [("class", category["name"]) for category in coco["categories"]]
    names += [("image", image["file_name"]) for image in coco["images"]]
    for what, name in names:
        try:
            name.encode()
        except UnicodeEncodeError as error:
            fault = "has a name that is no Unicode text; rename it"
            raise UserError(f"{labels}: the {what} {quoted(name)} {fault}") from error


def _divide(
    dataset: str,
    labels: Coco,
    images: Path,
    data_root: str | None,
    options: CustomDatasetOptions,
    skipped: list[str] | None,
) -> _Splits:
    """The labels as training split with the given test split or their own, or divided into both."""
    yolo = _yolo_file(dataset)
    test_labels = options.test_labels or (dataset if yolo is not None and has_validation(yolo) else None)
    if test_labels is None:
        train, test, remark = _hold_out(dataset, labels, options.held_out_seed)
        return _Splits(train, images, test, images, [remark], is_divided=True)
    splits = _Splits(labels, images, labels, images)
    if options.test_labels is None or Path(test_labels).resolve() != Path(dataset).resolve():
        test, test_images, remarks = _read(test_labels, data_root, skipped, "val")
        splits = _Splits(labels, images, test, test_images, remarks)
    if options.test_labels is None:
        splits.remarks.append(f"the {len(splits.test['images']):,} images of `val` are those of evaluation")
    splits.remarks.extend(_shared_images(dataset, splits))
    known, evaluated = ({category["name"] for category in split["categories"]} for split in (labels, splits.test))
    if evaluated - known:
        names = ", ".join(sorted(evaluated - known))
        splits.remarks.append(f"{test_labels}: {names}: no class of {dataset}, not evaluated")
    return splits


def _chosen_classes(dataset: str, known: Sequence[str], chosen: Sequence[str]) -> tuple[str, ...]:
    """The classes to use, in the order of the labels."""
    for name in chosen:
        if name not in known:
            raise UserError(f"--classes {name}: {dataset} has no such class; it has {', '.join(known)}")
    if not known:
        raise UserError(f"{dataset}: has no classes")
    return tuple(name for name in known if name in chosen) if chosen else tuple(known)


def _alike_classes(dataset: str, classes: Sequence[str]) -> list[str]:
    """Remarks on classes whose names differ by case alone, or look the same."""
    alike: dict[str, list[str]] = {}
    for name in classes:
        alike.setdefault(unicodedata.normalize("NFC", name).casefold(), []).append(name)
    remarks = []
    for names in alike.values():
        if len(names) > 1:
            shown, difference = map(quoted, names), "case"
            if len({unicodedata.normalize("NFC", name) for name in names}) < len(names):
                shown, difference = map(ascii, names), "Unicode normal form"  # as text, they would look the same
            what = f"{' and '.join(shown)} are {len(names)} classes; their names differ by {difference} alone"
            remarks.append(f"{dataset}: {what}")
    return remarks


def _check_objects(
    dataset: str, splits: _Splits, classes: Sequence[str], options: CustomDatasetOptions, for_training: bool
) -> None:
    """Check that there are objects to evaluate on and, if need be, to train on; crowds do not count."""
    train, test = (_object_count(split, classes) for split in (splits.train, splits.test))
    if not splits.is_divided:
        if for_training and not train:
            raise UserError(f"{dataset}: nothing to train on; {_lacking(classes, splits.train)}")
        if not test:
            place = options.test_labels or dataset
            raise UserError(f"{place}: nothing to evaluate on; {_lacking(classes, splits.test)}")
    elif not train + test:
        raise UserError(f"{dataset}: nothing to train on; {_lacking(classes, splits.train, splits.test)}")
    elif not train or not test:
        names = [image["file_name"] for image in splits.test["images"]]
        count = f"{len(names):,} of {len(names) + len(splits.train['images']):,}, {quoted(names[0])} first"
        what = "nothing to evaluate on; no object is" if train else f"nothing to train on; all {test:,} objects are"
        raise UserError(
            f"{dataset}: {what} in the images held out for evaluation ({count}); hold out others with "
            f"--held-out-seed, or give --test-labels"
        )


def _lacking(classes: Sequence[str], *splits: Coco) -> str:
    ignored = sum(count_ignored(split["annotations"]) for split in splits)
    what = f"its images have no object of {', '.join(map(quoted, classes))}"
    return f"{what}; {ignored:,} are ignored (`iscrowd` or `ignore` is 1)" if ignored else what


def _object_count(coco: Coco, classes: Sequence[str]) -> int:
    ids = {category["id"] for category in coco["categories"] if category["name"] in classes}
    return sum(one["category_id"] in ids and not one["iscrowd"] for one in coco["annotations"])


def _hold_out(dataset: str, coco: Coco, seed: int) -> tuple[Coco, Coco, str]:
    """Training split, test split, and a remark; an image's split depends on its name and the seed alone."""
    names = [image["file_name"] for image in coco["images"]]
    if len(names) < 2:
        raise UserError(f"{dataset}: {len(names)} images are too few to hold out any: give --test-labels")
    held_out = set(draw_share(names, TEST_SHARE, seed))
    splits = []
    for is_test in (False, True):
        images = [image for image in coco["images"] if (image["file_name"] in held_out) == is_test]
        ids = {image["id"] for image in images}
        annotations = [annotation for annotation in coco["annotations"] if annotation["image_id"] in ids]
        splits.append({**coco, "images": images, "annotations": annotations})
    remark = f"{len(held_out):,} of {len(names):,} images are held out for evaluation (--held-out-seed {seed})"
    return splits[0], splits[1], remark


def _shared_images(dataset: str, splits: _Splits) -> list[str]:
    """A remark, if images are in both splits."""
    train = {(splits.train_images / image["file_name"]).resolve() for image in splits.train["images"]}
    shared = sum((splits.test_images / image["file_name"]).resolve() in train for image in splits.test["images"])
    count = len(splits.test["images"])
    return [f"{shared:,} of the {count:,} test images are among those of {dataset}"] if shared else []


def _only_classes(coco: Coco, categories: list[dict[str, Any]], classes: Sequence[str]) -> Coco:
    """Labels of these classes alone, in the order and with the ids that the classes have in `categories`."""
    kept = [category for category in categories if category["name"] in classes]
    ids = {category["name"]: category["id"] for category in kept}
    names = {category["id"]: category["name"] for category in coco["categories"]}
    annotations = [
        {**annotation, "category_id": ids[names[annotation["category_id"]]]}
        for annotation in coco["annotations"]
        if names[annotation["category_id"]] in ids
    ]
    return {"images": coco["images"], "annotations": numbered(annotations), "categories": kept}
