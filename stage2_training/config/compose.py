"""Composing one plain MMDetection config from base configs of three groups: model, dataset, schedule.

A base config, or fragment, is a short MMEngine config file, `configs/<group>/<name>.py`, or any file given by its path.
Its keys are MMDetection's own, and it holds only what its group decides:

- models: `model`, the plain detector, and optimizer settings that the detector needs; for pre-training
  `configs/pretraining` has the same detectors with Saliency Prompt and, but for FreeSOLO's SOLOv2, a frozen backbone;
- datasets: `train_dataloader.dataset` with `metainfo.classes`, `val_dataloader.dataset`, `val_evaluator` and
  `train_cfg.max_epochs` of fine-tuning;
- schedules: the rest of the data loaders, pipelines, optimizer and learning rate; those of pre-training also
  `train_cfg.max_epochs`.

`runtime.py` comes first, and a later fragment wins: runtime, schedule, dataset, model. What follows from the data
(number of classes, paths, length of seed features) is filled in, then the command line's overrides.

Some keys of a composed config are none of MMDetection's, which ignores them. `pseudo_labels`, `labels`, `objects` and
`training_images` say what the data holds, and `initialisation` (set when a run starts) where the initial weights came
from; they tie a work directory to its data. `HELPERS` of fragments are read here or by other fragments, and are not
part of the composed config: of a dataset, `default_schedule` is the schedule that it is trained with, and
`max_epochs_of` has the numbers of epochs of single detectors by initial weights; of a schedule, `lr_factor_of` has what
its learning rate is multiplied with. With `length_by_images`, length, evaluations and augmentation follow from the
number of images (`few_images.py`).
"""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import asdict, fields
from functools import partial
from typing import Any

from mmengine.config import Config
from mmengine.utils import import_modules_from_strings

from stage1_proposals.common.errors import UserError
from stage1_proposals.shards import ShardSet
from stage2_training.config.annotation_files import label_hashes
from stage2_training.config.few_images import draw_images, fit_to_images
from stage2_training.config.fragments import CONFIGS, find_fragment, fragment_file
from stage2_training.config.objects import Objects, labelled_objects, proposed_objects
from stage2_training.config.overrides import Overrides, apply_overrides, parse_options
from stage2_training.config.pieces import fit_to_pieces
from stage2_training.saliency_prompt.settings import SaliencyPromptSettings

HELPERS = frozenset(
    {"default_schedule", "length_by_images", "lite0", "lr_factor_of", "max_epochs_of", "metainfo", "small_head"}
)
REQUIRED_OF_DATASETS = (
    "train_cfg.max_epochs",
    "train_dataloader.dataset.metainfo.classes",
    "val_dataloader.dataset",
    "val_evaluator",
)


def default_schedule(name: str, device: str) -> str:
    """The schedule of a run that names none: on a CPU its smaller counterpart, where there is one.

    Args:
        name: the schedule for GPUs, such as `pretrain`, `finetune` or a dataset's `default_schedule`.
        device: `cpu` or `cuda`.
    """
    smaller = f"{name}_cpu"
    return smaller if device == "cpu" and fragment_file("schedules", smaller).is_file() else name


def pretraining_config(
    model: str,
    schedule: str,
    shards: ShardSet,
    *,
    prompts: bool = True,
    saliency_prompt: Mapping[str, Any] | None = None,
    pseudo_classes: bool = False,
    image_root: str | None = None,
    device: str | None = None,
    overrides: Overrides | None = None,
) -> Config:
    """The config of a pre-training run: a detector with Saliency Prompt, class-agnostic.

    Args:
        model, schedule: names or files of fragments.
        shards: the pseudo labels; the length of their seed features goes into the model.
        prompts: False trains the plain detector on the pseudo labels: no prompts, no kernel supervision, and a frozen
            backbone.
        saliency_prompt: fields of `SaliencyPromptSettings` that override those of the model's fragment.
        pseudo_classes: use the shards' clusters as classes instead of a single class.
        image_root: where the images are now, when not where stage 1 found them.
        device: where it trains; on `cpu`, a process takes no more images at a time than free memory holds.

    Raises:
        UserError: no such fragment, a detector without a Saliency Prompt variant, settings that are invalid or do not
            fit the shards, a malformed `cfg_options`, or pseudo classes asked for and not in every shard.
    """
    if prompts:
        fragments = [read_prompt_variant(model)]
    else:
        plain = _read_plain_model(model)
        fragments = [plain]
        if "frozen_stages" in plain["model"].get("backbone", {}):  # not every backbone has the argument
            fragments.append(read_fragment("pretraining", "parts/frozen_backbone"))
    config = _merge(
        _read_schedule(schedule, for_pretraining=True), read_fragment("datasets", "pseudo_labels"), *fragments
    )
    if prompts:
        settings = {"feature_dim": shards.feature_dim, **config.model.saliency_prompt, **(saliency_prompt or {})}
        config.model.saliency_prompt = asdict(SaliencyPromptSettings(**settings))  # in full: defaults may change
    set_num_classes(config.model, 1)
    config.train_dataloader.dataset.update(shards=str(shards.directory), image_root=image_root)
    config.pseudo_labels = {"images": shards.image_count, "content_sha256": shards.content_sha256}
    if pseudo_classes:
        clusters = shards.clusters()
        set_num_classes(config.model, clusters.classes)
        config.train_dataloader.dataset.pseudo_classes = True
        config.pseudo_labels.clusters = clusters.to_json()
    overrides = overrides or Overrides()
    fitted = None in (overrides.queries, overrides.image_size)  # else the start opens no shard
    objects = partial(_trained_proposals, shards, overrides.cfg_options) if fitted else None
    apply_overrides(config, overrides, device, objects)
    if prompts:
        _check_feature_dim(config, shards)
    return config


def _trained_proposals(shards: ShardSet, options: Sequence[str], config: Config) -> Objects:
    """The proposals that a pre-training learns from, by its config or by `cfg_options`, which are applied later."""
    most = config.train_dataloader.dataset.get("max_proposals")
    most = parse_options(options).get("train_dataloader.dataset.max_proposals", most)
    return proposed_objects(shards, most if isinstance(most, int) and most > 0 else None)


def finetuning_config(
    model: str,
    dataset: str | Mapping[str, Any],
    schedule: str | None = None,
    *,
    init: str | None = None,
    device: str | None = None,
    overrides: Overrides | None = None,
) -> Config:
    """The config of a fine-tuning run: the plain detector with as many classes as the dataset has.

    Args:
        model: name or file of a fragment.
        dataset: likewise, or the fragment itself (`open_dataset` makes that of a custom dataset).
        schedule: name or file; default: the dataset's own, or `finetune`.
        init: name of the initial weights, on which the number of epochs and the learning rate may depend.
        device: where it trains; on `cpu`, a process takes no more images at a time than free memory holds.

    Raises:
        UserError: no such fragment, one that lacks what its group decides, or a malformed `cfg_options`.
    """
    labelled = read_dataset(dataset) if isinstance(dataset, str) else dataset
    schedule = schedule or labelled.get("default_schedule", "finetune")
    scheduled, plain = _read_schedule(schedule, for_pretraining=False), _read_plain_model(model)
    if factor := scheduled.get("lr_factor_of", {}).get(plain["model"]["type"], {}).get(init):
        scheduled["optim_wrapper"]["optimizer"]["lr"] *= factor  # before a dataset's or model's own rate, which wins
    config = _merge(scheduled, labelled, plain)
    set_num_classes(config.model, len(config.train_dataloader.dataset.metainfo.classes))
    epochs = (labelled.get("max_epochs_of") or {}).get(config.model.type, {})
    config.train_cfg.max_epochs = epochs.get(init, epochs.get("others", config.train_cfg.max_epochs))
    config.test_cfg = {"type": "TestLoop"}  # the test set is the validation set
    config.test_dataloader = deepcopy(config.val_dataloader)
    config.test_evaluator = deepcopy(config.val_evaluator)
    overrides, by_images = overrides or Overrides(), labelled.get("length_by_images")
    if overrides.tiles is None and not by_images:  # the paper's datasets are seen as it sees them
        overrides = overrides.model_copy(update={"tiles": "off"})

    def objects(config: Config) -> Objects | None:
        if overrides.train_images:
            draw_images(config, overrides.train_images, keep_length=bool(by_images or overrides.epochs))
        found = labelled_objects(config.train_dataloader.dataset)
        if found:
            config.training_images = found.image_count
            if by_images:
                fit_to_images(config, found.image_count, overrides.epochs)
            fit_to_pieces(config)
        return found

    apply_overrides(config, overrides, device, objects)
    config.labels = label_hashes(config)
    return config


def read_fragment(group: str, name: str) -> dict[str, Any]:
    """The variables of `configs/<group>/<name>.py`, or of the file `name` when it ends in `.py`.

    Raises:
        UserError: there is no such fragment; the message lists those that exist.
    """
    path = find_fragment(group, name)
    try:
        return Config.fromfile(path, import_custom_modules=False).to_dict()
    except (SyntaxError, OSError, KeyError, ValueError, TypeError, NameError, AttributeError) as error:
        raise UserError(f"{path}: not a config file ({error})") from error


def read_prompt_variant(model: str) -> dict[str, Any]:
    """The fragment of a detector with Saliency Prompt, from `configs/pretraining` or a file.

    Raises:
        UserError: there is no such fragment, or its detector takes no prompts.
    """
    if not fragment_file("pretraining", model).is_file():
        plain = read_fragment("models", model)  # raises UserError where there is no such model at all
        raise UserError(
            f"{plain['model']['type']} cannot take prompts: there is no configs/pretraining/{model}.py; pre-train it "
            f"with --prompts off, or add a variant as docs/models.md shows"
        )
    fragment = read_fragment("pretraining", model)
    if "saliency_prompt" not in fragment.get("model", {}):
        raise UserError(
            f"{model}: its model has no saliency_prompt; name a config like configs/pretraining/knet.py, or pre-train "
            f"with --prompts off"
        )
    return fragment


def _read_plain_model(model: str) -> dict[str, Any]:
    fragment = read_fragment("models", model)
    if "type" not in fragment.get("model", {}):
        raise UserError(f"{model}: lacks model.type; configs/models/knet.py shows what is needed")
    if "saliency_prompt" in fragment["model"]:
        raise UserError(
            f"{model}: is a Saliency Prompt variant, for pre-training with prompts only; name the plain detector here"
        )
    return fragment


def read_dataset(dataset: str) -> dict[str, Any]:
    """A dataset's fragment, by its name or file.

    Raises:
        UserError: no such fragment, or one that lacks what its group decides.
    """
    fragment = read_fragment("datasets", dataset)
    for required in REQUIRED_OF_DATASETS:
        value: Any = fragment
        for key in required.split("."):
            value = value.get(key) if isinstance(value, Mapping) else None
        if not value:
            raise UserError(f"dataset {dataset}: lacks {required}; configs/datasets/ctw1500.py shows what is needed")
    classes = fragment["train_dataloader"]["dataset"]["metainfo"]["classes"]
    if not isinstance(classes, list | tuple):
        raise UserError(f"dataset {dataset}: metainfo.classes {classes!r}: use a tuple of names")
    return fragment


def _read_schedule(schedule: str, for_pretraining: bool) -> dict[str, Any]:
    """Pre-training schedules set the number of epochs; fine-tuning schedules take it from the dataset."""
    fragment = read_fragment("schedules", schedule)
    if ("max_epochs" in fragment.get("train_cfg", {})) != for_pretraining:
        kind, name, reason = (
            ("pre-training", "pretrain", "it does not set train_cfg.max_epochs")
            if for_pretraining
            else ("fine-tuning", "finetune", "it sets train_cfg.max_epochs, which the dataset or --epochs decides")
        )
        raise UserError(f"schedule {schedule}: is not for {kind}: {reason}; {name}, {name}_cpu and {name}_demo are")
    return fragment


def _merge(*fragments: Mapping[str, Any]) -> Config:
    """`runtime.py` and fragments in one config; a later fragment wins.

    Modules that a fragment names in `custom_imports` are added to those of `runtime.py`, and imported at once, because
    they may declare traits of a detector.

    Raises:
        UserError: such a module cannot be imported, or a fragment has a value of another type than one before it.
    """
    config = Config(Config.fromfile(CONFIGS / "runtime.py", import_custom_modules=False).to_dict())
    modules = list(config.custom_imports.imports)
    for fragment in fragments:
        added = _custom_modules(fragment)
        modules += [module for module in added if module not in modules]
        merged = {key: value for key, value in fragment.items() if key not in {*HELPERS, "custom_imports"}}
        try:
            config.merge_from_dict(merged)
        except TypeError as error:
            raise UserError(f"the config's parts do not fit together ({error})") from error
    config.custom_imports.imports = modules
    config.model.data_preprocessor.bgr_to_rgb = False  # LoadRGBImage yields RGB, unlike MMDetection's own loader
    return config


def _custom_modules(fragment: Mapping[str, Any]) -> list[str]:
    """Import the modules that a fragment names in `custom_imports`, and return their names."""
    names = fragment.get("custom_imports", {}).get("imports", [])
    names = [names] if isinstance(names, str) else list(names)
    try:
        import_modules_from_strings(names)
    except ImportError as error:
        raise UserError(f"custom_imports {', '.join(names)}: cannot be imported ({error})") from error
    return names


def set_num_classes(node: Any, num_classes: int) -> None:
    """Set every number of classes in a config, at any depth, in place; no class is "stuff".

    A list of class weights gets the first class's weight for each class, and keeps the last, that of "no object".
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


def _check_feature_dim(config: Config, shards: ShardSet) -> None:
    expected = config.model.saliency_prompt.feature_dim
    if expected != shards.feature_dim:
        raise UserError(
            f"{shards.directory}: its seed features, of {shards.backbone.name}, have {shards.feature_dim} numbers, "
            f"but model.saliency_prompt.feature_dim is {expected}: leave that setting out, or use shards of another "
            f"backbone"
        )


def parse_saliency_prompt(options: Sequence[str]) -> dict[str, Any]:
    """Parse `name=value` strings to fields of `SaliencyPromptSettings`; the shards decide `feature_dim`.

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
