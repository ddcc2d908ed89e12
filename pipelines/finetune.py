"""Fine-tune a detector on a labelled dataset, evaluating after every epoch."""

from pathlib import Path
from typing import Any

import click

from pipelines import options
from pipelines.console import print_lines
from pipelines.launch import one_process_per_gpu
from stage1_proposals.common.files import write_json, writing
from stage1_proposals.common.system import choose_device
from stage2_training import quiet_imports
from stage2_training.config.datasets import names_labels, open_dataset
from stage2_training.config.fragments import check_fragments
from stage2_training.config.run_settings import Overrides
from stage2_training.labels.custom import CustomDatasetOptions, name_of
from stage2_training.runs.init_options import check_init

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
    """Fine-tune a detector on a labelled dataset, evaluating after every epoch; run again, it resumes."""
    check_init(init, checkpoint=checkpoint, weights=weights)
    # What is named is looked for, and labels are checked, before the imports below, which take seconds.
    own_labels = names_labels(dataset)
    check_fragments(models=model, schedules=schedule, datasets=None if own_labels else dataset)
    labels = open_dataset(dataset, overrides.data_root, custom) if own_labels else None
    device = choose_device(device)
    with quiet_imports():
        from stage2_training.config.annotation_files import check_annotations
        from stage2_training.config.compose import default_schedule, finetuning_config
        from stage2_training.config.cpu import describe_images
        from stage2_training.config.few_images import describe_length
        from stage2_training.config.objects import describe_objects
        from stage2_training.engine.best_checkpoint import describe_stop
        from stage2_training.evaluation.curves import plot_curves
        from stage2_training.evaluation.scores import format_scores, read_curve
        from stage2_training.runs import initial_weights
        from stage2_training.runs.train import train
        from stage2_training.runs.work_dir import RESUME_HINT, WorkDir

    labels = labels or open_dataset(dataset, overrides.data_root, custom)
    print_lines(*labels.remarks)
    schedule = schedule or default_schedule(labels.fragment.get("default_schedule", "finetune"), device)
    config = finetuning_config(model, labels.fragment, schedule, init=init, device=device, overrides=overrides)
    check_annotations(config, ["train", "val"])
    start = initial_weights.by_name(init, model, config.model.type, checkpoint=checkpoint, weights=weights)
    init_name = Path(init).stem
    work = WorkDir(work_dir or f"work_dirs/finetune/{name_of(dataset)}/{Path(model).stem}-{init_name}")

    def final_scores() -> dict[str, Any]:
        """The scores after the last epoch; writes and draws those of all epochs."""
        curve = read_curve(work.path)
        with writing(work.path / "curve.json", RESUME_HINT):
            write_json(work.path / "curve.json", curve)
            plot_curves({init_name: curve}, work.path / "curve.png")
        return {**curve[-1], **describe_stop(work.path, curve[-1]["epoch"], config.train_cfg.max_epochs)}

    chosen = f"{device}, schedule {schedule}, {describe_images(config)}"
    purpose = f"Fine-tuning {model} on {dataset} from {init} ({chosen})"
    remarks = [describe_objects(config), *filter(None, [describe_length(config)])]
    result = train(work, config, start, purpose, final_scores, command_line, overrides.cfg_options, remarks)
    print(f"Fine-tuned: {result.checkpoint}\n{format_scores(result.outcome)}")
    if stopped := result.outcome.get("stopped"):
        print(f"Ended {stopped} (--patience)")
    if (best := work.best()) and best.epoch < result.outcome["epoch"]:
        print(
            f"Best: {work.path / best.checkpoint}, {best.metric} {100 * best.score:.1f} after epoch {best.epoch}; "
            f"evaluate, predict and export take it unless given --last"
        )
