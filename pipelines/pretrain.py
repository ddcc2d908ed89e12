"""Pre-train a detector on the pseudo labels of stage 1."""

from pathlib import Path

import click

from pipelines import options
from pipelines.launch import one_process_per_gpu
from stage2_training.config.run_settings import Overrides
from stage2_training.runs.pretraining import pretrain
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
@options.settings_options("overrides", Overrides, without=["data_root", "patience", "train_images"])
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
    result = pretrain(
        shards,
        model=model,
        image_root=image_root,
        prompts=prompts == "on",
        saliency_prompt=saliency_prompt,
        pseudo_classes=pseudo_classes,
        backbone=backbone,
        weights=weights,
        schedule=schedule,
        work_dir=work_dir,
        device=device,
        overrides=overrides,
        command=command_line,
    )
    print(f"Pre-trained: {result.checkpoint}")
