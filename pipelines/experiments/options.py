"""The options that tables and figures share, and what they ask for."""

import argparse
from dataclasses import replace
from pathlib import Path

from pipelines import cli
from pipelines.experiments.scales import DEMO, SCALES, Scale
from pipelines.experiments.workspace import Machine, Workspace
from stage1_proposals.common.errors import UserError


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--scale", choices=SCALES, default=DEMO.name, help="default: %(default)s")
    parser.add_argument("--seeds", nargs="+", type=cli.at_least(0), default=[0], metavar="SEED", help="default: 0")
    parser.add_argument(
        "--jobs", type=cli.at_least(1), default=1, metavar="N", help="runs at once, each on its share of the cores"
    )
    parser.add_argument("--dry-run", action="store_true", help="say which runs there are, and run none")
    parser.add_argument(
        "--work-dir",
        type=Path,
        default=Path("work_dirs/experiments"),
        help="everything goes to WORK_DIR/SCALE; runs that are there are used (%(default)s)",
    )
    parser.add_argument("--device", choices=["cpu", "cuda"], help="default: the GPU when there is one")
    parser.add_argument("--gpus", type=cli.at_least(1), default=1, metavar="N", help="processes of training")
    parser.add_argument(
        "--batch-size", type=cli.at_least(1), help="images of a process at a time; the total batch stays"
    )
    parser.add_argument(
        "--images",
        nargs=3,
        type=cli.at_least(1),
        metavar=("UNLABELED", "TRAIN", "TEST"),
        help=f"of the demo set (default: {' '.join(map(str, DEMO.images or ()))})",
    )
    parser.add_argument("--pretrain-epochs", type=cli.at_least(1), help="default: the scale's")
    parser.add_argument("--finetune-epochs", type=cli.at_least(1), help="at most; default: the scale's")
    parser.add_argument(
        "--freesolo", type=Path, help="COCO JSON of FreeSOLO's masks of the unlabeled images, for Table 7"
    )


def scale_of(args: argparse.Namespace) -> Scale:
    """The scale as the command line changes it.

    Raises:
        UserError: `--images` where the images are real, or no such file of FreeSOLO's masks.
    """
    scale = SCALES[args.scale]
    if args.images:
        if scale.images is None:
            raise UserError(
                f"--images goes with --scale {DEMO.name}: at {scale.name} scale the images are the data sets'"
            )
        scale = replace(scale, images=tuple(args.images))
    if args.pretrain_epochs:
        scale = replace(scale, pretrain_epochs=args.pretrain_epochs)
    if args.finetune_epochs:
        scale = replace(scale, finetune_epochs=args.finetune_epochs)
    if args.freesolo:
        if not args.freesolo.is_file():
            raise UserError(f"--freesolo {args.freesolo}: no such file")
        scale = replace(scale, freesolo=str(args.freesolo.resolve()))
    return scale


def workspace_of(args: argparse.Namespace) -> Workspace:
    return Workspace(args.work_dir / args.scale, Machine(args.device, args.gpus, args.batch_size))


def seeds_of(args: argparse.Namespace) -> list[int]:
    """Each once, in order."""
    return list(dict.fromkeys(args.seeds))
