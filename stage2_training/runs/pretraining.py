"""Pre-training as a function: what `make pretrain` calls, and what a notebook can call."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from stage1_proposals.common.errors import UserError
from stage1_proposals.common.system import choose_device, configure_process
from stage2_training import quiet_imports
from stage2_training.config.run_settings import DEFAULT_MODEL, Overrides

if TYPE_CHECKING:
    from stage2_training.runs.work_dir import Result


def pretrain(
    shards: str | Path,
    *,
    model: str = DEFAULT_MODEL,
    image_root: str | Path | None = None,
    prompts: bool = True,
    saliency_prompt: Sequence[str] = (),
    pseudo_classes: bool = False,
    backbone: str | None = None,
    weights: str | None = None,
    schedule: str | None = None,
    work_dir: str | None = None,
    device: str | None = None,
    overrides: Overrides | None = None,
    command: Sequence[str] | None = None,
) -> "Result":
    """Pre-train a detector on the pseudo labels of a shard set, with Saliency Prompt; called again, it resumes.

    Args:
        shards: directory of the shard set.
        model: name or file of a config in `configs/pretraining`, or without prompts in `configs/models`.
        image_root: folder of the images, if it is not where the shards say.
        prompts: whether there are prompts.
        saliency_prompt: settings of prompts, as `matching=random`.
        pseudo_classes: whether the shards' clusters are classes.
        backbone: initial backbone, a name of the catalogue or `scratch`; None: that of the shards.
        weights: file of the backbone's weights.
        schedule: name or file of a config in `configs/schedules`; None: the device decides.
        work_dir: None: `work_dirs/pretrain/MODEL`, or `MODEL-pseudo` without prompts.
        device: `cpu`, `cuda`, or None for the GPU if there is one. A process can have but one.
        overrides: changes of the settings.
        command: what was typed, for the run's records.

    Returns:
        The run's last checkpoint, and the number of epochs.

    Raises:
        UserError: something that is named is not there or cannot be used.
    """
    configure_process()
    overrides = overrides or Overrides()
    if saliency_prompt and not prompts:
        raise UserError("--saliency-prompt goes with --prompts on: without prompts it would change nothing")
    from stage1_proposals.shards import ShardSet

    # The shard set is checked before the imports below, which take seconds.
    pseudo_labels = ShardSet.open(Path(shards))
    if pseudo_labels.image_count == 0 or pseudo_labels.proposal_count == 0:
        raise UserError(f"{shards}: holds no proposals to train on; `make inspect SHARDS={shards}` says why")
    device = choose_device(device)
    with quiet_imports():
        from stage2_training.config.compose import default_schedule, parse_saliency_prompt, pretraining_config
        from stage2_training.config.image_sizes import describe_images
        from stage2_training.runs import initial_weights
        from stage2_training.runs.train import train
        from stage2_training.runs.work_dir import WorkDir

    schedule = schedule or default_schedule("pretrain", device)
    config = pretraining_config(
        model,
        schedule,
        pseudo_labels,
        prompts=prompts,
        saliency_prompt=parse_saliency_prompt(saliency_prompt),
        pseudo_classes=pseudo_classes,
        image_root=str(image_root) if image_root else None,
        device=device,
        overrides=overrides,
    )
    if backbone == "scratch":
        start = initial_weights.scratch()
    elif backbone or weights:
        start = initial_weights.backbone(backbone or pseudo_labels.backbone.name, weights)
    else:
        start = initial_weights.stage1_backbone(pseudo_labels)
    work = WorkDir(work_dir or initial_weights.pretraining_dir(model, prompts))
    name = model if prompts else f"{model} without prompts"
    chosen = f"{device}, schedule {schedule}, {describe_images(config)}"
    purpose = f"Pre-training {name} on {pseudo_labels.image_count:,} images ({chosen})"
    outcome = {"epochs": config.train_cfg.max_epochs}
    typed = sys.argv if command is None else command
    return train(work, config, start, purpose, lambda: outcome, typed, overrides.cfg_options)
