"""The options that pre-training and fine-tuning share, and those of labels of the user's own."""

import argparse

from pipelines.cli import at_least
from stage2_training.config.overrides import Overrides
from stage2_training.labels.custom import CustomDatasetOptions


def add_run_options(parser: argparse.ArgumentParser, *, schedule: str | None, work_dir: str) -> None:
    """Add the options of a training run.

    Args:
        schedule: default schedule fragment; None: the dataset decides.
        work_dir: default work directory, as the help text shows it.
    """
    parser.add_argument("--schedule", default=schedule, help="configs/schedules/SCHEDULE.py, or a config file")
    parser.add_argument("--work-dir", help=f"where everything goes (default: {work_dir})")
    parser.add_argument("--device", choices=["cpu", "cuda"], help="default: the GPU when there is one")
    parser.add_argument("--epochs", type=at_least(1), help="length of training; milestones move with it")
    parser.add_argument(
        "--gpus", type=at_least(1), default=1, metavar="N", help="processes, one per GPU; with --device cpu, on CPU"
    )
    parser.add_argument(
        "--total-batch",
        type=at_least(1),
        help="images per optimizer step, on however many GPUs; the learning rate stays (default: the schedule's)",
    )
    parser.add_argument(
        "--batch-size",
        type=at_least(1),
        help="images of a process at a time, as memory allows; gradients add up to the total batch",
    )
    parser.add_argument(
        "--auto-scale-lr",
        action="store_true",
        help="scale the learning rate with the total batch",
    )
    parser.add_argument("--amp", action="store_true", help="mixed precision, bfloat16")
    parser.add_argument("--ema", action="store_true", help="use weights averaged over the steps")
    parser.add_argument("--workers", type=at_least(0), help="data-loading processes; 0 loads in the main process")
    parser.add_argument("--seed", type=at_least(0), default=0)
    parser.add_argument(
        "--cfg-options", nargs="+", default=(), metavar="KEY=VALUE", help="change any setting, as in MMDetection"
    )


def run_overrides(args: argparse.Namespace) -> Overrides:
    """What the options of `add_run_options` change in a composed config."""
    return Overrides(
        epochs=args.epochs,
        total_batch=args.total_batch,
        batch_size=args.batch_size,
        workers=args.workers,
        seed=args.seed,
        auto_scale_lr=args.auto_scale_lr,
        amp=args.amp,
        ema=args.ema,
        data_root=getattr(args, "data_root", None),  # pre-training has none
        cfg_options=args.cfg_options,
    )


def add_custom_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of a dataset that is named by its labels, COCO JSON or a folder of labelme files."""
    group = parser.add_argument_group("labels of your own")
    group.add_argument(
        "--test-labels", metavar="LABELS", help="labels to evaluate on (default: a fifth of the images is held out)"
    )
    group.add_argument("--classes", nargs="+", default=(), metavar="NAME", help="use these classes alone")
    group.add_argument(
        "--held-out-seed", type=at_least(0), default=0, metavar="N", help="which images are held out (%(default)s)"
    )
    group.add_argument(
        "--skip-malformed",
        action="store_true",
        help="leave out images that are missing or whose labels are malformed, and note them in the JSON's `info`",
    )


def custom_options(args: argparse.Namespace) -> CustomDatasetOptions:
    """What the options of `add_custom_options` say."""
    return CustomDatasetOptions(args.test_labels, tuple(args.classes), args.held_out_seed, args.skip_malformed)
