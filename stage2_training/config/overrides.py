"""What a command line changes in a composed config."""

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from mmengine.config import Config
from mmengine.dist import get_world_size

from stage1_proposals.common.errors import UserError
from stage2_training.config.checks import annotation_file

# What libraries raise when a setting has a name, type or value that they do not know.
CONFIG_ERRORS = (
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
        image_size: longer side of the images in pixels.
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
    image_size: int | None = None
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


def config_error(options: Sequence[str], error: Exception, name: str = "--cfg-options") -> UserError:
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
        raise config_error(options, error, name) from error


def passes(total: int, per_process: int, processes: int) -> int:
    """How many passes a process makes before an optimizer step.

    Raises:
        UserError: the total is not so many full passes; the message names what would fit.
    """
    _check_processes(total, processes)
    share = total // processes
    if share % per_process:
        raise UserError(
            f"--batch-size {per_process} does not divide the {share} images that each of {processes} processes takes "
            f"of the total batch of {total}; use one of {_listed(_divisors(share))}, or another --total-batch"
        )
    return share // per_process


def images_per_process(total: int, processes: int, most: int) -> int:
    """The most images, up to `most`, that a process can take at a time.

    Raises:
        UserError: the processes cannot share the total evenly; the message names what would fit.
    """
    _check_processes(total, processes)
    return max(each for each in _divisors(total // processes) if each <= most)


def _check_processes(total: int, processes: int) -> None:
    if total % processes:
        near = sorted({max(processes, total // processes * processes), -(-total // processes) * processes})
        raise UserError(
            f"{processes} processes cannot share the total batch of {total} evenly; "
            f"use {_listed(_divisors(total))} processes, or --total-batch {' or '.join(map(str, near))}"
        )


def _divisors(number: int) -> list[int]:
    return [each for each in range(1, number + 1) if number % each == 0]


def _listed(numbers: list[int]) -> str:
    return ", ".join(map(str, numbers))


# Settings of MMEngine's runner that our configs leave as they are.
UNSET = ("compile", "experiment_name", "find_unused_parameters", "resume", "sync_bn")


def override(config: Config, overrides: Overrides, derive: Callable[[Config], None] | None = None) -> Config:
    """Apply a command line's overrides, other than of `epochs`, to a composed config in place.

    The test set is the validation set, so `cfg_options` of the one hold for the other.

    Args:
        derive: sets what follows from other settings, in place.

    Raises:
        UserError: a malformed `cfg_options`, a batch size or number of epochs that is none, batches that do not divide
            the total, or no TensorBoard.
    """
    if overrides.total_batch is not None:
        config.train_cfg.total_batch = overrides.total_batch
    if overrides.batch_size is not None:
        config.train_dataloader.batch_size = overrides.batch_size
    if overrides.workers is not None:
        for part in ("train", "val", "test"):
            if f"{part}_dataloader" in config:
                config[f"{part}_dataloader"].num_workers = overrides.workers
                config[f"{part}_dataloader"].persistent_workers = overrides.workers > 0
    if overrides.seed is not None:
        config.randomness.seed = overrides.seed
    if overrides.auto_scale_lr:
        config.auto_scale_lr.enable = True
    _set_extras(config, overrides)
    options = parse_options(overrides.cfg_options)
    _check_known(options, config)
    options = {f"test{key.removeprefix('val')}": value for key, value in options.items() if key[:4] == "val_"} | options
    try:
        config.merge_from_dict(options)
        _check_positive("train_dataloader.batch_size", config.train_dataloader.batch_size)
        _check_positive("train_cfg.max_epochs", config.train_cfg.max_epochs)
        _share_batch(config, overrides.batch_size is not None or "train_dataloader.batch_size" in options)
        parts = [part for part in ("train", "val", "test") if f"{part}_dataloader" in config]
        if overrides.data_root is not None:
            for part in parts:
                config[f"{part}_dataloader"].dataset.data_root = overrides.data_root
        if derive is not None:
            derive(config)
        for part in parts:
            if f"{part}_evaluator" in config:  # it reads the labels of the images it judges
                config[f"{part}_evaluator"].ann_file = str(annotation_file(config[f"{part}_dataloader"].dataset))
        config.merge_from_dict(options)  # again: what it names outdoes what was derived
    except CONFIG_ERRORS as error:
        raise config_error(overrides.cfg_options, error) from error
    return config


def _check_known(options: Mapping[str, Any], config: Config) -> None:
    """MMEngine leaves settings that it does not know unread."""
    for key in options:
        name = key.split(".")[0]
        if name not in (*config, *UNSET):
            near = get_close_matches(name, [*config, *UNSET], 1)
            raise UserError(f"--cfg-options {key}: no such setting" + (f"; {near[0]}?" if near else ""))


def _set_extras(config: Config, overrides: Overrides) -> None:
    """Mixed precision, averaged weights."""
    if config.optim_wrapper.type == "OptimWrapper":  # MMEngine's; ours does the same, and what is asked here
        config.optim_wrapper.type = "AccumulatingOptimWrapper"
    if overrides.amp:
        config.optim_wrapper.amp = True
    if overrides.ema:
        config.custom_hooks = [*config.custom_hooks, {"type": "EMAHook", "momentum": 0.001, "strict_load": True}]


def _share_batch(config: Config, fixed: bool) -> None:
    """Share the total batch among the processes; `fixed`: the images of a process at a time are as the user says."""
    processes, loader = get_world_size(), config.train_dataloader
    total = config.train_cfg.setdefault("total_batch", loader.batch_size * processes)
    _check_positive("train_cfg.total_batch", total)
    if fixed:
        passes(total, loader.batch_size, processes)
    else:
        loader.batch_size = images_per_process(total, processes, most=loader.batch_size)


def _check_positive(key: str, value: Any) -> None:
    if type(value) is not int or value < 1:
        raise UserError(f"{key} {value!r}: use an integer from 1 up")
