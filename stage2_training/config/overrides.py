"""Applying a command line's overrides to a composed config, and sharing the total batch among processes."""

from argparse import ArgumentParser
from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from typing import Any

from mmengine.config import Config, DictAction
from mmengine.dist import get_world_size

from stage1_proposals.common.errors import UserError
from stage2_training.config.annotation_files import annotation_file
from stage2_training.config.cpu import fit_memory
from stage2_training.config.image_sizes import resize_images, see_tiles
from stage2_training.config.objects import Objects, fit_to_objects, query_count, set_queries
from stage2_training.config.run_settings import Overrides, tile_side
from stage2_training.config.tracking import track
from stage2_training.engine.schedulers import scale_milestones
from stage2_training.engine.steps import images_per_process, passes
from stage2_training.saliency_prompt.detectors import detector_traits

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

# Settings of MMEngine's runner that no fragment sets.
UNSET = ("compile", "experiment_name", "find_unused_parameters", "sync_bn")

DATALOADERS = ("train", "val", "test")


def apply_overrides(
    config: Config,
    overrides: Overrides,
    device: str | None = None,
    objects: Callable[[Config], Objects | None] | None = None,
) -> Config:
    """Apply a command line's overrides to a composed config, in place.

    The test set is the validation set, so `cfg_options` for the one hold for the other.

    Args:
        device: where the config trains; on `cpu`, a process takes no more images at a time than free memory holds,
            unless the batch size is given.
        objects: reads what the config trains on; the number of queries and the images' size follow from it, unless
            they are given.

    Raises:
        UserError: a malformed or unknown `cfg_options`, a batch size or number of epochs that is not a positive
            integer, batches that do not divide the total, an image size where nothing resizes to a fixed size, or
            mixed precision with an optimizer wrapper that does not have it.
    """
    _apply_named(config, overrides)
    found, tile = objects(config) if objects else None, tile_side(overrides.tiles)
    if tile and not detector_traits(config.model.type).masks:
        raise UserError(f"--tiles {tile}: {config.model.type} finds boxes, and tiles are joined by masks; use off")
    if found and None in (overrides.queries, overrides.image_size):
        fit_to_objects(config, found, overrides.queries, overrides.image_size, tile)
    elif tile:
        see_tiles(config, tile)
    options = parse_options(overrides.cfg_options)
    _check_known(options, config)
    options = {f"test{key.removeprefix('val')}": value for key, value in options.items() if key[:4] == "val_"} | options
    try:
        config.merge_from_dict(options)
        _check_positive("train_dataloader.batch_size", config.train_dataloader.batch_size)
        _check_positive("train_cfg.max_epochs", config.train_cfg.max_epochs)
        fixed = overrides.batch_size is not None or "train_dataloader.batch_size" in options
        if device == "cpu" and not fixed:
            config.train_cfg.setdefault("total_batch", config.train_dataloader.batch_size * get_world_size())
            fit_memory(config, query_count(config) or 0)
        _share_batch(config, fixed)
        for part in DATALOADERS:
            if f"{part}_evaluator" in config:  # it reads the annotations of the images that it judges
                dataset = config[f"{part}_dataloader"].dataset
                config[f"{part}_evaluator"].ann_file = str(annotation_file(dataset))
        config.merge_from_dict(options)  # an explicit option overrides the derived value
        _keep_explicit_schedules(config, options)
    except CONFIG_ERRORS as error:
        if not options:
            raise UserError(f"the config's parts do not fit together ({str(error) or type(error).__name__})") from error
        raise config_error(overrides.cfg_options, error) from error
    return config


def _apply_named(config: Config, overrides: Overrides) -> None:
    """All overrides but `cfg_options`."""
    if overrides.epochs is not None:
        config.train_cfg.max_epochs = overrides.epochs
    if overrides.total_batch is not None:
        config.train_cfg.total_batch = overrides.total_batch
    if overrides.batch_size is not None:
        config.train_dataloader.batch_size = overrides.batch_size
    for part in DATALOADERS:
        loader = config.get(f"{part}_dataloader")
        if loader is None:
            continue
        if overrides.workers is not None:
            loader.num_workers = overrides.workers
            loader.persistent_workers = overrides.workers > 0
        if overrides.data_root is not None:
            loader.dataset.data_root = overrides.data_root
        if overrides.image_size is not None:
            resize_images(loader.dataset, overrides.image_size)
    if overrides.queries is not None:
        if query_count(config) is None:
            raise UserError(f"--queries {overrides.queries}: {config.model.type} has no queries; leave the option out")
        set_queries(config, overrides.queries)
    if overrides.seed is not None:
        config.randomness.seed = overrides.seed
    if overrides.patience is not None:
        config.default_hooks.best.patience = overrides.patience
    if overrides.track is not None:
        track(config, overrides.track)
    if overrides.auto_scale_lr:
        config.auto_scale_lr.enable = True
    if overrides.amp:
        wrapper = config.optim_wrapper.get("type", "OptimWrapper")
        if wrapper != "AccumulatingOptimWrapper":
            raise UserError(
                f"--amp: the schedule's optim_wrapper is {wrapper}; use AccumulatingOptimWrapper, or leave out --amp"
            )
        config.optim_wrapper.amp = True
    if overrides.ema:
        config.custom_hooks = [*config.custom_hooks, {"type": "EMAHook", "momentum": 0.001, "strict_load": True}]


def _keep_explicit_schedules(config: Config, options: Mapping[str, Any]) -> None:
    """Let an `end` or milestones that were set explicitly mean what they mean in MMEngine.

    The project's own schedules scale with the run's length. A schedule with an explicit value becomes the schedule of
    MMEngine that it is derived from.
    """
    schedules = config.get("param_scheduler")
    for number, schedule in enumerate(schedules if isinstance(schedules, list | tuple) else ()):
        if schedule["type"] == "ShortWarmUpLR" and "end" in schedule:
            schedule["type"] = "LinearLR"
            for name in ("steps", "max_share"):
                schedule.pop(name, None)
        elif schedule["type"] == "ScaledMultiStepLR":
            key = f"param_scheduler.{number}"
            explicit = f"{key}.milestones" in options and f"{key}.of_epochs" not in options
            if explicit or "end" in schedule:
                schedule["type"], of_epochs = "MultiStepLR", schedule.pop("of_epochs")
                if not explicit:
                    epochs = config.train_cfg.max_epochs
                    schedule["milestones"] = scale_milestones(schedule["milestones"], epochs, of_epochs)


def parse_options(options: Sequence[str], name: str = "--cfg-options") -> dict[str, Any]:
    """Parse `key.path=value` strings to values, as MMDetection does.

    Args:
        name: of the command's option, for messages.

    Raises:
        UserError: an option without `=`, or with brackets that do not close.
    """
    for option in options:
        if "=" not in option:
            raise UserError(f"{name} {option!r}: write it as key=value")
    parser = ArgumentParser()
    parser.add_argument("values", nargs="*", action=DictAction)
    try:
        parsed = parser.parse_args(["--", *options])
    except AssertionError as error:
        raise config_error(options, error, name) from error
    return dict(parsed.values or {})


def config_error(options: Sequence[str], error: Exception, name: str = "--cfg-options") -> UserError:
    """The user's error for `cfg_options` with which a config, a model or a run cannot be built."""
    return UserError(f"{name} {' '.join(options)}: does not fit the config ({str(error) or type(error).__name__})")


def _check_known(options: Mapping[str, Any], config: Config) -> None:
    """Refuse settings with an unknown first name, which MMEngine would ignore."""
    for key in options:
        name = key.split(".")[0]
        if name not in (*config, *UNSET):
            near = get_close_matches(name, [*config, *UNSET], 1)
            raise UserError(f"--cfg-options {key}: no such setting" + (f"; {near[0]}?" if near else ""))


def _check_positive(key: str, value: Any) -> None:
    if type(value) is not int or value < 1:
        raise UserError(f"{key} {value!r}: use an integer from 1 up")


def _share_batch(config: Config, fixed: bool) -> None:
    """Share the total batch among the processes; `fixed`: the user chose how many images a process takes at a time."""
    processes, loader = get_world_size(), config.train_dataloader
    total = config.train_cfg.setdefault("total_batch", loader.batch_size * processes)
    _check_positive("train_cfg.total_batch", total)
    if fixed:
        passes(total, loader.batch_size, processes)
    else:
        loader.batch_size = images_per_process(total, processes, most=loader.batch_size)
