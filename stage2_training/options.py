"""What a command line changes in a composed config."""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from stage1_proposals.errors import UserError

# What libraries raise when a setting has a name, type or value that they do not know.
MISFITS = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    ImportError,
    LookupError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
)


@dataclass(frozen=True)
class Overrides:
    """What a command line changes in a composed config; None leaves it as the fragments have it.

    Attributes:
        epochs: length of training; milestones move with it.
        total_batch: images per optimizer step, over all processes.
        batch_size: images of a process at a time.
        workers: data-loading processes per data loader.
        seed: of everything random.
        auto_scale_lr: scale the learning rate with the total batch, from the schedule's base batch size.
        amp: forward passes in bfloat16.
        ema: average the weights over the run, and evaluate and hand on the averages.
        data_root: folder of a labelled dataset, when not the fragment's.
        cfg_options: `key.path=value` as MMDetection's `--cfg-options`, applied last.
    """

    epochs: int | None = None
    total_batch: int | None = None
    batch_size: int | None = None
    workers: int | None = None
    seed: int | None = None
    auto_scale_lr: bool = False
    amp: bool = False
    ema: bool = False
    data_root: str | None = None
    cfg_options: Sequence[str] = ()

    @classmethod
    def from_args(cls, args: argparse.Namespace) -> "Overrides":
        return cls(
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


def misfit(options: Sequence[str], error: Exception, name: str = "--cfg-options") -> UserError:
    """The user's error for `cfg_options` with which a config, a model or a run cannot be made."""
    return UserError(f"{name} {' '.join(options)}: does not fit the config ({str(error) or type(error).__name__})")


def parse_options(options: Sequence[str], name: str = "--cfg-options") -> dict[str, Any]:
    """`key.path=value` strings to values, as MMDetection reads them.

    Args:
        name: of the command's option, for messages.

    Raises:
        UserError: an option without `=`, or with brackets that do not close.
    """
    from mmengine.config import DictAction  # seconds: not before options are read

    for option in options:
        if "=" not in option:
            raise UserError(f"{name} {option!r}: write it as key=value")
    parser = argparse.ArgumentParser()
    parser.add_argument("--cfg-options", nargs="+", action=DictAction)
    try:
        return (parser.parse_args(["--cfg-options", *options]).cfg_options or {}) if options else {}
    except AssertionError as error:
        raise misfit(options, error, name) from error
