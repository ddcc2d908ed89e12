"""Pre-train a detector on the pseudo labels of stage 1."""

from pathlib import Path

import click

from pipelines import options
from pipelines.launch import one_process_per_gpu
from stage1_proposals.common.errors import UserError
from stage1_proposals.common.system import choose_device
from stage2_training import quiet_imports
from stage2_training.config.run_settings import Overrides
from stage2_training.saliency_prompt.settings import setting_choices

PROMPT_SETTINGS = (
    f"How prompts are made and matched and kernels supervised: {', '.join(setting_choices())} (docs/ablations.md)."
)


@click.command(cls=options.Command)
@options.model_option(folders="configs/pretraining (with --prompts off, configs/models)")
@options.shards_option
@options.image_root_option
@click.option("--prompts", type=click.Choice(["on", "off"]), default="on", help="off: the plain detector.")
@options.words_option("--saliency-prompt", metavar="NAME=VALUE", help=PROMPT_SETTINGS)
@click.option("--pseudo-classes", is_flag=True, help="One class per cluster of `make cluster`, not a single class.")
@click.option("--backbone", help="Initial backbone: a name of the catalogue, or `scratch`. Default: stage 1's.")
@click.option("--weights", help="File with the backbone's weights, when they are not bundled.")
@options.schedule_option()
@options.work_dir_option("work_dirs/pretrain/MODEL, or MODEL-pseudo without prompts")
@options.device_option
@one_process_per_gpu
@options.settings_options("overrides", Overrides, without=["data_root", "patience"])
@click.pass_obj
def command(
    command_line: list[str],
    model: str,
    shards: Path,
    image_root: Path | None,
    prompts: str,
    saliency_prompt: tuple[str, ...],
    pseudo_classes: bool,
    backbone: str | None,
    weights: str | None,
    schedule: str | None,
    work_dir: str | None,
    device: str | None,
    overrides: Overrides,
) -> None:
    """Pre-train a detector on the pseudo labels of stage 1, with Saliency Prompt; run again, it resumes."""
    if saliency_prompt and prompts == "off":
        raise UserError("--saliency-prompt goes with --prompts on: without prompts it would change nothing")
    from stage1_proposals.shards import ShardSet

    # The shard set is checked before the imports below, which take seconds.
    pseudo_labels = ShardSet.open(shards)
    if pseudo_labels.image_count == 0 or pseudo_labels.proposal_count == 0:
        raise UserError(f"{shards}: holds no proposals to train on; `make inspect SHARDS={shards}` says why")
    device = choose_device(device)
    with quiet_imports():
        from stage2_training.config.compose import default_schedule, parse_saliency_prompt, pretraining_config
        from stage2_training.config.cpu import describe_images
        from stage2_training.config.objects import describe_objects
        from stage2_training.runs import initial_weights
        from stage2_training.runs.train import train
        from stage2_training.runs.work_dir import WorkDir

    schedule = schedule or default_schedule("pretrain", device)
    config = pretraining_config(
        model,
        schedule,
        pseudo_labels,
        prompts=prompts == "on",
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
    work = WorkDir(work_dir or initial_weights.pretraining_dir(model, prompts == "on"))
    name = model if prompts == "on" else f"{model} without prompts"
    chosen = f"{device}, schedule {schedule}, {describe_images(config)}"
    purpose = f"Pre-training {name} on {pseudo_labels.image_count:,} images ({chosen})"
    outcome = {"epochs": config.train_cfg.max_epochs}
    remarks = [describe_objects(config)]
    result = train(work, config, start, purpose, lambda: outcome, command_line, overrides.cfg_options, remarks)
    print(f"Pre-trained: {result.checkpoint}")
