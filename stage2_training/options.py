"""What a command line changes in a composed config."""

import argparse
from collections.abc import Sequence
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
