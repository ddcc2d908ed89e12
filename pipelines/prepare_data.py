"""Prepare a labelled set: check it, convert it to COCO JSON, draw a few labels. Also makes the embedded demo set."""

import argparse
import dataclasses
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from pipelines import cli
from pipelines.demo_data import demo_set
from pipelines.run_options import add_custom_options, custom_options
from stage1_proposals.common.errors import UserError
from stage2_training.labels import cityscapes, coco_subset, ctw1500
from stage2_training.labels import custom as own
from stage2_training.labels.preview import draw_sheet

PUBLISHED = ("demo", "ctw1500", "cityscapes", *coco_subset.SHARES)


@dataclass(frozen=True)
class Half:
    """A training or test half that is ready: its COCO JSON, its images' folder, and where its picture goes."""

    labels: Path
    images: Path

    @property
    def sheet(self) -> Path:
        return self.labels.with_name(f"{self.labels.stem}_check.png")


def show(half: Half, images: int) -> None:
    """Print what a COCO JSON holds, what is ignored and what was left out; draw some of it."""
    coco = json.loads(half.labels.read_text(encoding="utf-8"))
    ignored = sum(bool(annotation["iscrowd"]) for annotation in coco["annotations"])
    classes = len(coco["categories"])
    print(
        f"{half.labels}: {len(coco['images']):,} images, {len(coco['annotations']):,} objects of "
        f"{classes} {'class' if classes == 1 else 'classes'}" + (f", {ignored:,} of them ignored" if ignored else "")
    )
    info = coco.get("info", {})
    if "partial" in info:
        print(f"  a part: made from {info['partial']['found']:,} of {info['partial']['expected']:,} images")
    for label in info.get("dropped", ()):
        print(f"  left out, no pixel inside its image: {label}")
    for what in info.get("skipped", ()):
        print(f"  left out: {cli.on_one_line(what)}")
    if images and coco["images"]:
        drawn = draw_sheet(coco, half.images, half.sheet, images)
        print(f"  labels of {drawn} images drawn: {half.sheet}")


def prepare_demo(root: Path, args: argparse.Namespace) -> Iterator[Half]:
    if not demo_set.build(root, args.seed, demo_set.Counts(*args.images)):
        print(f"{root} is complete; nothing to do")
    print(f"{root / 'unlabeled'}: {sum(1 for _ in (root / 'unlabeled').glob('*.jpg'))} unlabeled images")
    for split in ctw1500.SPLITS:
        yield Half(root / "ctw1500" / "annotations" / f"{split}.json", root / "ctw1500")
    yield Half(root / demo_set.OBJECTS, (root / demo_set.OBJECTS).parent)


def prepare_converted(kind: ModuleType, counts: dict[str, int], root: Path, args: argparse.Namespace) -> Iterator[Half]:
    """CTW1500 and Cityscapes, which come in other formats."""
    if not args.partial:
        for split, count in counts.items():
            kind.check_complete(root, split, count)
    for split, count in counts.items():
        skipped: list[str] | None = [] if args.skip_malformed else None
        yield Half(kind.write_annotations(root, split, skipped, count), root)


def prepare_coco(name: str, root: Path, args: argparse.Namespace) -> Iterator[Half]:
    skipped: list[str] | None = [] if args.skip_malformed else None
    labels = coco_subset.write_subset(root, name, args.seed, skipped, args.partial)
    print(f"{coco_subset.ids_file(root, name)}: the ids of its images, drawn by seed {args.seed}")
    yield Half(labels, root / "train2017")
    yield Half(root / "annotations" / "instances_val2017.json", root / "val2017")
    unlabeled, expected = coco_subset.unlabeled_images(root), coco_subset.COUNTS["unlabeled2017"]
    if unlabeled is None:
        print(f"{root / 'unlabeled2017'} is not there; only stage 1 needs it")
    else:
        print(f"{root / 'unlabeled2017'}: {unlabeled:,} of {expected:,} images for stage 1")


def prepare_custom(args: argparse.Namespace) -> Iterator[Half]:
    prepared = own.prepare(args.dataset, str(args.root) if args.root else None, custom_options(args))
    for remark in prepared.remarks:
        print(cli.on_one_line(remark))
    yield Half(prepared.train, prepared.train_images)
    yield Half(prepared.test, prepared.test_images)


def prepare(args: argparse.Namespace) -> Iterator[Half]:
    """Check and convert the set that is asked for; its halves, as they are ready.

    Raises:
        UserError: it is not whole, or its labels cannot be used.
    """
    folder = "coco" if args.dataset in coco_subset.SHARES else args.dataset
    root = args.root or Path("data") / folder
    if args.dataset in PUBLISHED and (args.test_labels or args.classes or args.held_out_seed):
        raise UserError(f"--test-labels, --classes and --held-out-seed go with labels of your own, not {args.dataset}")
    if args.dataset == "demo":
        return prepare_demo(root, args)
    if args.dataset == "ctw1500":
        return prepare_converted(ctw1500, {name: half.count for name, half in ctw1500.SPLITS.items()}, root, args)
    if args.dataset == "cityscapes":
        return prepare_converted(cityscapes, cityscapes.COUNTS, root, args)
    if args.dataset in coco_subset.SHARES:
        return prepare_coco(args.dataset, root, args)
    if own.is_custom(args.dataset):
        return prepare_custom(args)
    raise UserError(
        f"no dataset {args.dataset!r}: pass one of {', '.join(PUBLISHED)}, or the path of COCO JSON or of a folder of "
        f"labelme files"
    )


def main(args: argparse.Namespace) -> None:
    for half in prepare(args):
        show(half, args.sheet)


def build_parser() -> argparse.ArgumentParser:
    parser = cli.Parser(prog="python -m pipelines.prepare_data", description=__doc__)
    parser.add_argument(
        "--dataset", required=True, help=f"{', '.join(PUBLISHED)}, or the path of COCO JSON or a labelme folder"
    )
    parser.add_argument(
        "--root",
        "--out",
        "--data-root",
        type=Path,
        metavar="DIR",
        help="demo: the folder to write; published sets: the folder of their unpacked parts (data/DATASET, COCO's "
        "data/coco); labels of your own: the folder of the images, where they do not say it",
    )
    parser.add_argument(
        "--images",
        nargs=3,
        type=cli.at_least(1),
        default=dataclasses.astuple(demo_set.Counts()),
        metavar=("UNLABELED", "TRAIN", "TEST"),
        help="demo: how many of each kind (%(default)s); as many as TEST are labelled images of objects, too",
    )
    parser.add_argument(
        "--seed",
        type=cli.at_least(0),
        default=0,
        help="demo: decides every image; coco10, coco5: which images (%(default)s)",
    )
    parser.add_argument(
        "--partial", action="store_true", help="published sets: take a part, and note it in the JSON's `info`"
    )
    parser.add_argument(
        "--sheet", type=cli.at_least(0), default=12, metavar="N", help="images to draw labels on (%(default)s); 0: none"
    )
    add_custom_options(parser)
    return parser


if __name__ == "__main__":
    sys.exit(cli.run(main, build_parser()))
