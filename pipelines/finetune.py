"""Fine-tune a detector on a labelled dataset, evaluating it at intervals."""

import click

from pipelines import options
from pipelines.console import print_lines
from pipelines.launch import one_process_per_gpu
from stage2_training.config.run_settings import Overrides
from stage2_training.evaluation.scores import format_scores
from stage2_training.labels.custom import CustomDatasetOptions
from stage2_training.runs.finetuning import finetune

INITIAL_WEIGHTS = (
    "Initial weights: sp (pre-training with Saliency Prompt), pseudo (without prompts), imagenet, densecl, swav, "
    "mocov2 (only the backbone), coco (the published K-Net), scratch, or a file."
)
CHECKPOINT = "With --init sp, pseudo or coco: the checkpoint, or pre-training's work directory. Default: MODEL's."


@click.command(cls=options.Command)
@options.model_option()
@options.dataset_option()
@click.option("--init", default="sp", help=INITIAL_WEIGHTS)
@click.option("--checkpoint", help=CHECKPOINT)
@click.option("--weights", help="File with the backbone's weights of --init imagenet, densecl, swav or mocov2.")
@options.schedule_option()
@options.work_dir_option("work_dirs/finetune/DATASET/MODEL-INIT")
@options.device_option
@one_process_per_gpu
@options.settings_options("overrides", Overrides)
@options.settings_options("custom", CustomDatasetOptions)
@click.pass_obj
def command(
    command_line: list[str],
    model: str,
    dataset: str,
    init: str,
    checkpoint: str | None,
    weights: str | None,
    schedule: str | None,
    work_dir: str | None,
    device: str | None,
    overrides: Overrides,
    custom: CustomDatasetOptions,
) -> None:
    """Fine-tune a detector on a labelled dataset, evaluating it at intervals; run again, it resumes."""
    result = finetune(
        dataset,
        model=model,
        init=init,
        checkpoint=checkpoint,
        weights=weights,
        schedule=schedule,
        work_dir=work_dir,
        device=device,
        overrides=overrides,
        custom=custom,
        command=command_line,
        tell=print_lines,
    )
    print(f"Fine-tuned: {result.checkpoint}\n{format_scores(result.outcome)}")
    if stopped := result.outcome.get("stopped"):
        print(f"Ended {stopped} (--patience)")
    if result.outcome.get("best_epoch", result.outcome["epoch"]) < result.outcome["epoch"]:
        print(
            f"Best: {result.outcome['best_checkpoint']}, after epoch {result.outcome['best_epoch']}; evaluate, predict "
            f"and export take it unless given --last"
        )
