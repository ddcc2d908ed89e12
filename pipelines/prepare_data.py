"""Prepare labelled and unlabeled data: the embedded demo set, or the real CTW1500 once it is on disk."""

import argparse
import dataclasses
import json
import sys
from pathlib import Path

from pipelines import cli
from pipelines.embedded_data import demo_set
from stage2_training.labels import ctw1500


def summarise(annotations: Path) -> None:
    """Print what each COCO JSON of a converted CTW1500 holds, what is ignored and what was left out."""
    for path in (annotations / "train.json", annotations / "test.json"):
        coco = json.loads(path.read_text(encoding="utf-8"))
        ignored = sum(annotation["iscrowd"] for annotation in coco["annotations"])
        print(
            f"{path}: {len(coco['images']):,} photos, {len(coco['annotations']):,} lines of text"
            + (f", {ignored:,} of them illegible (ignored)" if ignored else "")
        )
        for label in coco["info"]["dropped"]:
            print(f"  left out, no pixel inside its photo: {label}")


def prepare_demo(root: Path, seed: int, counts: demo_set.Counts) -> None:
    if not demo_set.build(root, seed, counts):
        print(f"{root} is complete; nothing to do")
    print(f"{root / 'unlabeled'}: {sum(1 for _ in (root / 'unlabeled').glob('*.jpg'))} unlabeled photos")
    summarise(root / "ctw1500" / "annotations")


def prepare_ctw1500(root: Path) -> None:
    for split, expected in ctw1500.SPLITS.items():
        ctw1500.check_complete(root, split, expected.count)
    for split in ctw1500.SPLITS:
        ctw1500.write_annotations(root, split)
    summarise(root / "annotations")


def main(args: argparse.Namespace) -> None:
    root = args.root or Path("data") / args.dataset
    if args.dataset == "demo":
        prepare_demo(root, args.seed, demo_set.Counts(*args.photos))
    else:
        prepare_ctw1500(root)


def build_parser() -> argparse.ArgumentParser:
    parser = cli.Parser(prog="python -m pipelines.prepare_data", description=__doc__)
    parser.add_argument("--dataset", required=True, choices=["demo", "ctw1500"])
    parser.add_argument(
        "--root",
        "--out",
        type=Path,
        metavar="DIR",
        help="demo: the folder to write; ctw1500: the folder of its four unpacked parts (data/DATASET)",
    )
    parser.add_argument(
        "--photos",
        nargs=3,
        type=cli.at_least(1),
        default=dataclasses.astuple(demo_set.Counts()),
        metavar=("UNLABELED", "TRAIN", "TEST"),
        help="demo: how many of each kind (%(default)s)",
    )
    parser.add_argument("--seed", type=cli.at_least(0), default=0, help="demo: decides every photo (%(default)s)")
    return parser


if __name__ == "__main__":
    sys.exit(cli.run(main, build_parser()))
