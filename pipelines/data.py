"""A labelled dataset: checked, converted to COCO JSON, a few labels drawn. Also makes the demo's dataset."""

import json
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import click

from pipelines import options
from pipelines.console import format_table, one_line, print_lines, progress
from stage1_proposals.common.errors import UserError
from stage2_training.labels.custom import CustomDatasetOptions, count_ignored, left_out

ClassCounts = dict[str, tuple[int, int]]  # of each class: objects, and images with any
PUBLISHED = ("demo", "ctw1500", "cityscapes", "coco10", "coco5")


class Split(NamedTuple):
    """A training or test set that is ready.

    Attributes:
        labels: its COCO JSON.
        images: the folder of its images.
        are_skipped_told: whether the images that were left out have been printed already.
    """

    labels: Path
    images: Path
    are_skipped_told: bool = False


@click.command(cls=options.Command)
@click.option("--dataset", default="demo", help=f"{', '.join(PUBLISHED)}, COCO JSON, a labelme folder or data.yaml.")
@click.option("--data-root", type=options.PATH, help="Folder to write the demo to, or to find a dataset in.")
@options.image_counts_option
@options.seed_option("demo: decides every image; coco10, coco5: which images.")
@click.option("--partial", is_flag=True, help="Published datasets: take a part, and note it in the JSON's `info`.")
@click.option("--sheet", type=options.NON_NEGATIVE, default=12, help="Images to draw labels on; 0: none.")
@options.settings_options("custom", CustomDatasetOptions)
def command(
    dataset: str,
    data_root: Path | None,
    count: tuple[int, int, int] | None,
    seed: int,
    partial: bool,
    sheet: int,
    custom: CustomDatasetOptions,
) -> None:
    """Check a labelled dataset, convert it to COCO JSON and draw a few labels; or make the demo's dataset.

    Every image is decoded, and the classes are listed with the numbers of their objects.

    Published datasets are looked for in data/DATASET (COCO's subsets in data/coco), unpacked; the images of a custom
    dataset where its labels say, or in --data-root.
    """
    from stage2_training.labels import cityscapes, coco_subset, ctw1500
    from stage2_training.labels.custom import is_custom

    root = data_root or Path("data") / ("coco" if dataset in coco_subset.SHARES else dataset)
    if dataset in PUBLISHED and (custom.test_labels or custom.classes or custom.held_out_seed):
        raise UserError(f"--test-labels, --classes and --held-out-seed go with custom datasets, not {dataset}")
    if dataset == "demo":
        splits = make_demo(root, seed, count)
    elif dataset == "ctw1500":
        counts = {name: split.count for name, split in ctw1500.SPLITS.items()}
        splits = convert(ctw1500, counts, root, partial, custom.skip_malformed)
    elif dataset == "cityscapes":
        splits = convert(cityscapes, cityscapes.COUNTS, root, partial, custom.skip_malformed)
    elif dataset in coco_subset.SHARES:
        splits = draw_coco_subset(dataset, root, seed, partial, custom.skip_malformed)
    elif is_custom(dataset):
        splits = prepare_custom(dataset, data_root, custom)
    else:
        raise UserError(
            f"no dataset {dataset!r}: pass one of {', '.join(PUBLISHED)}, or the path of COCO JSON, of a folder of "
            f"labelme files or of a YOLO set's data.yaml"
        )
    print_classes({split.labels.stem: summarise(split, sheet) for split in splits})


def make_demo(root: Path, seed: int, count: tuple[int, int, int] | None) -> Iterator[Split]:
    """The demo's unlabeled images, CTW1500-format text images and labelled images of objects."""
    from pipelines.demo_data import demo_set
    from stage2_training.labels import ctw1500

    counts = demo_set.Counts(*count or ())
    with progress("drawing the demo's images", "images", counts.total) as advance:
        built = demo_set.build(root, seed, counts, advance)
    if not built:
        print(f"{root} is complete; nothing to do")
    print(f"{root / 'unlabeled'}: {sum(1 for _ in (root / 'unlabeled').glob('*.jpg'))} unlabeled images")
    for name in ctw1500.SPLITS:
        yield Split(root / "ctw1500" / "annotations" / f"{name}.json", root / "ctw1500")
    yield Split(root / demo_set.OBJECTS, (root / demo_set.OBJECTS).parent)


def convert(
    converter: ModuleType, counts: dict[str, int], root: Path, partial: bool, skip_malformed: bool
) -> Iterator[Split]:
    """CTW1500 and Cityscapes, whose labels are in formats of their own."""
    if not partial:
        for name, count in counts.items():
            converter.check_complete(root, name, count)
    for name, count in counts.items():
        skipped: list[str] | None = [] if skip_malformed else None
        yield Split(converter.write_annotations(root, name, skipped, count), root)


def draw_coco_subset(name: str, root: Path, seed: int, partial: bool, skip_malformed: bool) -> Iterator[Split]:
    """A tenth or twentieth of COCO's training images, and its validation images."""
    from stage2_training.labels import coco_subset

    skipped: list[str] | None = [] if skip_malformed else None
    labels = coco_subset.write_subset(root, name, seed, skipped, partial)
    print(f"{coco_subset.ids_file(root, name)}: the ids of its images, drawn by seed {seed}")
    yield Split(labels, root / "train2017")
    yield Split(root / "annotations" / "instances_val2017.json", root / "val2017")
    unlabeled, expected = coco_subset.unlabeled_images(root), coco_subset.COUNTS["unlabeled2017"]
    if unlabeled is None:
        print(f"{root / 'unlabeled2017'} does not exist; only stage 1 needs it")
    else:
        print(f"{root / 'unlabeled2017'}: {unlabeled:,} of {expected:,} images for stage 1")


def prepare_custom(dataset: str, data_root: Path | None, custom: CustomDatasetOptions) -> Iterator[Split]:
    """A dataset given by its labels; raises as `custom.prepare`."""
    from stage2_training.labels.custom import prepare

    prepared = prepare(dataset, str(data_root) if data_root else None, custom, for_training=True)
    print_lines(*prepared.remarks)
    yield Split(prepared.train, prepared.train_images, are_skipped_told=True)
    yield Split(prepared.test, prepared.test_images, are_skipped_told=True)


def summarise(split: Split, sheet_images: int) -> ClassCounts:
    """Print what a COCO JSON holds, what is ignored and what was left out; draw labels on `sheet_images` images.

    Returns:
        the numbers of objects of each class, and of images with any, without those that are ignored.
    """
    from stage2_training.labels.preview import draw_sheet

    coco = json.loads(split.labels.read_text(encoding="utf-8"))
    ignored = count_ignored(coco["annotations"])
    objects = ignored + sum(not annotation["iscrowd"] for annotation in coco["annotations"])
    print(
        f"{split.labels}: {_count(len(coco['images']), 'image')}, {_count(objects, 'object')} of "
        f"{_count(len(coco['categories']), 'class', 'es')}" + (f", {ignored:,} of them ignored" if ignored else "")
    )
    info = coco.get("info", {})
    if "partial" in info:
        print(f"  partial: {info['partial']['found']:,} of {info['partial']['expected']:,} images")
    for label in info.get("dropped", ()):
        print(f"  left out, no pixel inside its image: {label}")
    for line in () if split.are_skipped_told else left_out(info.get("skipped", ())):
        print(f"  {one_line(line)}")
    if sheet_images and coco["images"]:
        sheet = split.labels.with_name(f"{split.labels.stem}_check.png")
        drawn = draw_sheet(coco, split.images, sheet, sheet_images)
        print(f"  labels of {drawn} images drawn: {sheet}")
    images: dict[int, list[int]] = {category["id"]: [] for category in coco["categories"]}
    for annotation in coco["annotations"]:
        if not annotation["iscrowd"]:
            images[annotation["category_id"]].append(annotation["image_id"])
    names = {category["id"]: category["name"] for category in coco["categories"]}
    return {names[number]: (len(found), len(set(found))) for number, found in images.items()}


def _count(number: int, noun: str, plural: str = "s") -> str:
    return f"{number:,} {noun}{'' if number == 1 else plural}"


def print_classes(counts: dict[str, ClassCounts]) -> None:
    """Print a table of the classes: how many objects each split has of them, in how many images."""
    names = dict.fromkeys(name for split in counts.values() for name in split)
    heading = ["class", *(f"{split} {what}" for split in counts for what in ("objects", "images"))]
    rows = [
        [one_line(name), *(f"{number:,}" for split in counts.values() for number in split.get(name, (0, 0)))]
        for name in names
    ]
    print(f"\n{format_table(heading, rows)}")
