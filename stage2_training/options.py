"""The options that pre-training and fine-tuning share, and what they change in a composed config."""

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Overrides:
    """What a command line changes in a composed config; None leaves it as the fragments have it.

    Attributes:
        epochs: length of training; milestones move with it.
        batch_size: images per process.
        workers: data-loading processes per data loader.
        seed: of everything random.
        auto_scale_lr: scale the learning rate with the total batch, from the schedule's base batch size.
        data_root: folder of a labelled dataset, when not the fragment's.
        cfg_options: `key.path=value` as MMDetection's `--cfg-options`, applied last.
    """

    epochs: int | None = None
    batch_size: int | None = None
    workers: int | None = None
    seed: int | None = None
    auto_scale_lr: bool = False
    data_root: str | None = None
    cfg_options: Sequence[str] = ()

    @classmethod
    def from_args(cls, args: argparse.Namespace) -> "Overrides":
        return cls(
            epochs=args.epochs,
            batch_size=args.batch_size,
            workers=args.workers,
            seed=args.seed,
            auto_scale_lr=args.auto_scale_lr,
            data_root=getattr(args, "data_root", None),  # pre-training has none
            cfg_options=args.cfg_options,
        )


def at_least(lowest: int) -> Callable[[str], int]:
    """An argparse type: an integer from `lowest` up."""

    def parse(text: str) -> int:
        if int(text) < lowest:
            raise ValueError
        return int(text)

    parse.__name__ = f"integer from {lowest} up"
    return parse


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
    parser.add_argument("--batch-size", type=at_least(1), help="images per process; the learning rate stays")
    parser.add_argument(
        "--auto-scale-lr", action="store_true", help="scale the learning rate with the total batch size, from 96"
    )
    parser.add_argument("--workers", type=at_least(0), help="data-loading processes; 0 loads in the main process")
    parser.add_argument("--seed", type=at_least(0), default=0)
    parser.add_argument(
        "--cfg-options", nargs="+", default=(), metavar="KEY=VALUE", help="change any setting, as in MMDetection"
    )
