"""Applying what a command line changes, and what follows from it, to a composed config."""

from collections.abc import Callable, Mapping
from difflib import get_close_matches
from typing import Any

from mmengine.config import Config
from mmengine.dist import get_world_size

from stage1_proposals.errors import UserError
from stage2_training.annotations import annotation_file
from stage2_training.options import MISFITS, Overrides, misfit, parse_options
from stage2_training.total_batch import images_per_process, passes

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
            if f"{part}_evaluator" in config:  # it reads the labels of the photos it judges
                config[f"{part}_evaluator"].ann_file = str(annotation_file(config[f"{part}_dataloader"].dataset))
        config.merge_from_dict(options)  # again: what it names outdoes what was derived
    except MISFITS as error:
        raise misfit(overrides.cfg_options, error) from error
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
