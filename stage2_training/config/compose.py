"""Composing one plain MMDetection config from three axes: model, dataset, schedule.

A fragment is a short MMEngine config file, `configs/<axis>/<name>.py`, or any file given by its path. Its keys are
MMDetection's own, and it holds only those its axis decides:

- models: `model`, the vanilla detector, and `pretraining`, what pre-training changes in it;
- datasets: `train_dataloader.dataset` with `metainfo.classes`, `val_dataloader.dataset`, `val_evaluator`, and for how
  long to fine-tune: `epochs` and `milestones` (epochs after which the learning rate drops), and where some detectors
  take another number of epochs `epochs_of`; a set of the user's own, named by its labels, has no file;
- schedules: the rest of the data loaders, pipelines, optimizer, learning rate; for pre-training `epochs` as well.

`runtime.py` comes first, and a later fragment wins: runtime, schedule, dataset, model.
"""

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import asdict, fields, replace
from functools import partial
from math import ceil
from pathlib import Path
from typing import Any

from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.utils import import_modules_from_strings

from stage1_proposals.common.errors import UserError
from stage1_proposals.shards import ShardSet
from stage2_training.config.checks import image_count, label_hashes
from stage2_training.config.overrides import Overrides, override, parse_options
from stage2_training.engine.distributed import on_rank_zero
from stage2_training.labels import custom as own
from stage2_training.saliency_prompt.settings import SaliencyPromptSettings

CONFIGS = Path(__file__).resolve().parents[2] / "configs"


def read_fragment(axis: str, name: str) -> dict[str, Any]:
    """The variables of `configs/<axis>/<name>.py`, or of the file `name` when it ends in `.py`.

    Raises:
        UserError: there is no such fragment; the message lists those there are.
    """
    path = Path(name) if name.endswith(".py") else CONFIGS / axis / f"{name}.py"
    if not path.is_file():
        known = ", ".join(sorted(file.stem for file in (CONFIGS / axis).glob("*.py")))
        paths = "the path of a config file" + (", COCO JSON or a folder of labelme files" if axis == "datasets" else "")
        raise UserError(f"no {axis.removesuffix('s')} {name!r}: pass one of {known}, or {paths}")
    try:
        return Config.fromfile(path, import_custom_modules=False).to_dict()
    except (SyntaxError, OSError, KeyError, ValueError, TypeError, NameError, AttributeError) as error:
        raise UserError(f"{path}: not a config file ({error})") from error


def pretraining_config(
    model: str,
    schedule: str,
    shards: ShardSet,
    *,
    prompts: bool = True,
    saliency_prompt: Mapping[str, Any] | None = None,
    pseudo_classes: bool = False,
    image_root: str | None = None,
    overrides: Overrides | None = None,
) -> Config:
    """The config of a pre-training run: the detector's Saliency Prompt variant, frozen backbone, class-agnostic.

    Args:
        model, schedule: names of fragments.
        shards: the pseudo labels; their seed features' length goes into the model.
        prompts: False trains the plain detector on the pseudo labels: no prompts, no kernel supervision.
        saliency_prompt: fields of `SaliencyPromptSettings`, before those of the model's fragment.
        pseudo_classes: not class-agnostic: the shards' clusters are the classes.
        image_root: where the images are now, when not where stage 1 found them.

    Raises:
        UserError: no such fragment, a detector without a Saliency Prompt variant, settings that are none or do not
            fit the shards, a malformed `cfg_options`, or pseudo classes asked for and not in every shard.
    """
    overrides = overrides or Overrides()
    _check_schedule(schedule, for_pretraining=True)
    config, changes = _merge(model, read_fragment("datasets", "pseudo_labels"), schedule)
    of_model = changes.pop("saliency_prompt", {})
    if prompts:
        config.model.type = _prompted_type(config)
        settings = {"feature_dim": shards.feature_dim, **of_model, **(saliency_prompt or {})}
        config.model.saliency_prompt = asdict(SaliencyPromptSettings(**settings))  # whole: defaults may change
    config.merge_from_dict({"model": changes})
    set_num_classes(config.model, 1)
    config.train_dataloader.dataset.update(shards=str(shards.directory), image_root=image_root)
    # Not read by MMDetection: it ties the work directory to what these shards hold.
    config.pseudo_labels = {"images": shards.image_count, "content_sha256": shards.content_sha256}
    if pseudo_classes:
        clusters = shards.clusters()
        set_num_classes(config.model, clusters["classes"])
        config.train_dataloader.dataset.pseudo_classes = True
        config.pseudo_labels.clusters = clusters
    config = _finish(config, overrides, partial(_shorten_warm_up, images=shards.image_count))
    if prompts:
        _check_feature_dim(config, shards)
    return config


def _check_schedule(schedule: str, for_pretraining: bool) -> None:
    """Those of pre-training say for how long; fine-tuning's leave that to the dataset."""
    if ("epochs" in read_fragment("schedules", schedule)) != for_pretraining:
        kind, other = ("pre-training", "pretrain") if for_pretraining else ("fine-tuning", "finetune")
        raise UserError(f"schedule {schedule}: is not one for {kind}, as {other} and {other}_demo are")


def _prompted_type(config: Config) -> str:
    """The registered type of the detector's Saliency Prompt variant."""
    import_modules_from_strings(**config.custom_imports)
    detector, prompted = config.model.type, f"SaliencyPrompt{config.model.type}"
    if prompted not in MODELS:
        raise UserError(
            f"{detector} cannot take prompts: there is no {prompted}; pre-train it with --prompts off, or add an "
            f"adapter as docs/models.md shows"
        )
    return prompted


def _check_feature_dim(config: Config, shards: ShardSet) -> None:
    expected = config.model.saliency_prompt.feature_dim
    if expected != shards.feature_dim:
        raise UserError(
            f"{shards.directory}: its seed features, of {shards.backbone['name']}, have {shards.feature_dim} numbers, "
            f"but model.saliency_prompt.feature_dim is {expected}: leave that setting out, or use shards of another "
            f"backbone"
        )


def parse_saliency_prompt(options: Sequence[str]) -> dict[str, Any]:
    """`name=value` strings to fields of `SaliencyPromptSettings`; the length of seed features is the shards' matter.

    Raises:
        UserError: no such setting, or a value that is malformed or out of range.
    """
    values = parse_options(options, "--saliency-prompt")
    known = [field.name for field in fields(SaliencyPromptSettings) if field.name != "feature_dim"]
    for name in values:
        if name not in known:
            raise UserError(f"--saliency-prompt {name}: no such setting; there are {', '.join(known)}")
    SaliencyPromptSettings(feature_dim=1, **values)
    return values


def read_dataset(
    dataset: str, data_root: str | None = None, choices: own.CustomDatasetOptions | None = None
) -> dict[str, Any]:
    """A dataset's fragment, by its name, its file, or the labels of a set of the user's own.

    The latter are checked and written as COCO JSON, and what is worth knowing is printed.

    Args:
        data_root: folder of the images of a set of the user's own.
        choices: what the command line says of it.

    Raises:
        UserError: no such dataset, one that lacks what its axis decides, or as `own.prepare`.
    """
    named = dataset in {file.stem for file in (CONFIGS / "datasets").glob("*.py")}  # even where such a folder is
    if not named and own.is_custom(dataset):
        prepared = on_rank_zero(lambda: own.prepare(dataset, data_root, choices))
        for remark in prepared.remarks:
            print(remark)
        return own.as_config(prepared)
    if choices not in (None, own.CustomDatasetOptions()):
        raise UserError(
            f"--test-labels, --classes, --held-out-seed and --skip-malformed go with labels of your own, not {dataset}"
        )
    labels = read_fragment("datasets", dataset)
    for key in ("epochs", "milestones", "train_dataloader", "val_dataloader", "val_evaluator"):
        if key not in labels:
            raise UserError(f"dataset {dataset}: lacks {key}; configs/datasets/ctw1500.py shows what is needed")
    return labels


def finetuning_config(
    model: str,
    dataset: str,
    schedule: str | None = None,
    *,
    init: str | None = None,
    choices: own.CustomDatasetOptions | None = None,
    overrides: Overrides | None = None,
) -> Config:
    """The config of a fine-tuning run: the vanilla detector with as many classes as the dataset has.

    Args:
        dataset: name or file of a fragment; or COCO JSON or a folder of labelme files.
        schedule: default: the dataset fragment's own, or `finetune`.
        init: name of the initial weights, on which the number of epochs may depend.
        choices: how to use a dataset of the user's own.

    Raises:
        UserError: no such fragment, one that lacks what its axis decides, a malformed `cfg_options`, or labels of the
            user's own that cannot be used.
    """
    overrides = overrides or Overrides()
    labels = read_dataset(dataset, overrides.data_root, choices)
    classes = labels["train_dataloader"]["dataset"].get("metainfo", {}).get("classes")
    if not isinstance(classes, list | tuple) or not classes:
        raise UserError(f"dataset {dataset}: train_dataloader.dataset.metainfo lacks its classes, a tuple of names")
    schedule = schedule or labels.get("schedule", "finetune")
    _check_schedule(schedule, for_pretraining=False)
    config, _ = _merge(model, labels, schedule)
    set_num_classes(config.model, len(classes))
    lengths = (labels.get("epochs_of") or {}).get(config.model.type, {})
    epochs = overrides.epochs or lengths.get(init, lengths.get("others"))
    config = _finish(config, replace(overrides, epochs=epochs), _shorten_warm_up)
    # Not read by MMDetection: it ties the work directory to what the labels hold.
    config.labels = label_hashes(config)
    return config


def set_num_classes(node: Any, num_classes: int) -> None:
    """Set every number of classes in a config, however deep, in place; no class is "stuff".

    A list of class weights gets the first class's for each class, and keeps the last: that of "no object".
    """
    if isinstance(node, dict):
        for key, value in node.items():
            if key in ("num_classes", "num_things_classes"):
                node[key] = num_classes
            elif key == "num_stuff_classes":
                node[key] = 0
            elif key == "class_weight" and isinstance(value, list):
                node[key] = [value[0]] * num_classes + value[-1:]
            else:
                set_num_classes(value, num_classes)
    elif isinstance(node, list | tuple):
        for value in node:
            set_num_classes(value, num_classes)


def _merge(model: str, dataset: Mapping[str, Any], schedule: str) -> tuple[Config, dict[str, Any]]:
    """The fragments' union, and what the model changes for pre-training."""
    config = Config(Config.fromfile(CONFIGS / "runtime.py", import_custom_modules=False).to_dict())
    for fragment in (read_fragment("schedules", schedule), dataset, read_fragment("models", model)):
        config.merge_from_dict(fragment)
    changes = config.pop("pretraining", {})
    for helper in ("metainfo", "schedule", "epochs_of"):  # variables of dataset fragments that are no settings
        config.pop(helper, None)
    # Images are read as RGB, by stage 1 and stage 2 alike.
    config.model.data_preprocessor.bgr_to_rgb = False
    return config, changes


def _shorten_warm_up(config: Config, images: int | None = None) -> None:
    """Warm up for a tenth of the steps at most: on few images a fixed number would be the whole run.

    Args:
        images: how many there are; those of the annotation file, if None.
    """
    if images is None:
        images = image_count(config.train_dataloader.dataset)
        if images is None:
            return  # what is wrong with the file is said elsewhere
    steps = config.train_cfg.max_epochs * ceil(images / config.train_cfg.total_batch)
    for scheduler in config.param_scheduler:
        if scheduler.type == "LinearLR":
            scheduler.end = min(scheduler.end, max(2, steps // 10))  # MMEngine's never rises in a single step


def _finish(config: Config, overrides: Overrides, derive: Callable[[Config], None] | None = None) -> Config:
    """Turn `epochs` and `milestones` into MMEngine's settings, add the test set, apply the overrides."""
    epochs, milestones = config.pop("epochs"), config.pop("milestones")
    config.train_cfg.max_epochs = overrides.epochs or epochs
    for scheduler in config.param_scheduler:
        if scheduler.type == "MultiStepLR":
            scheduler.milestones = [max(1, round(step * config.train_cfg.max_epochs / epochs)) for step in milestones]
            scheduler.end = config.train_cfg.max_epochs
    if "val_dataloader" in config:  # the test set is the validation set
        config.test_cfg = {"type": "TestLoop"}
        config.test_dataloader = deepcopy(config.val_dataloader)
        config.test_evaluator = deepcopy(config.val_evaluator)
    return override(config, overrides, derive)
