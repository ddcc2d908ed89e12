"""Evaluate a checkpoint: COCO AP of masks and boxes on a dataset's test images."""

from pathlib import Path

import click

from pipelines import options
from pipelines.console import format_table, one_line, print_lines
from stage1_proposals.common.errors import UserError
from stage1_proposals.common.files import check_writable, write_json, writing
from stage1_proposals.common.system import choose_device
from stage2_training import quiet_imports
from stage2_training.config.datasets import names_labels, open_dataset
from stage2_training.config.fragments import check_fragments
from stage2_training.config.run_settings import Overrides
from stage2_training.labels.custom import CustomDatasetOptions
from stage2_training.runs.init_options import check_checkpoint, check_run


@click.command(cls=options.Command)
@click.option("--work-dir", help="Work directory of a fine-tuning run; with --class-agnostic, of any run.")
@options.model_option(default=None)
@options.dataset_option(default=None)
@click.option("--schedule", help="Decides the images' size, with --model and --dataset. Default: the dataset's.")
@click.option("--checkpoint", help="A file, or a run's directory: its best. Default: that of --work-dir.")
@click.option("--last", is_flag=True, help="Of a run, the last checkpoint in place of that of the best validation AP.")
@click.option("--class-agnostic", is_flag=True, help="Objects of all classes count as one, and so do detections.")
@click.option("--out", help="JSON of the scores. Default: metrics.json or class_agnostic.json by the checkpoint.")
@options.device_option
@options.settings_options("overrides", Overrides, only=["image_size", "tiles", "data_root", "workers", "cfg_options"])
@options.settings_options("custom", CustomDatasetOptions)
def command(
    work_dir: str | None,
    model: str | None,
    dataset: str | None,
    schedule: str | None,
    checkpoint: str | None,
    last: bool,
    class_agnostic: bool,
    out: str | None,
    device: str | None,
    overrides: Overrides,
    custom: CustomDatasetOptions,
) -> None:
    """Evaluate a checkpoint: COCO AP of masks and boxes on a dataset's test images.

    Name the work directory of a fine-tuning run; or model, dataset and checkpoint; or, with --class-agnostic, the work
    directory of any run and a dataset. Of a custom dataset, the images are the fifth that fine-tuning holds out. To
    evaluate on all images, pass the same labels as --test-labels.
    """
    source = checkpoint or work_dir
    if source is None:
        raise UserError("nothing to evaluate: pass --work-dir, or --model, --dataset and --checkpoint")
    if work_dir:
        check_run_options(model or schedule, dataset, class_agnostic, custom)
        check_run(work_dir)
    # What is named is looked for, and labels are checked, before the imports below, which take seconds.
    check_checkpoint(source)
    own_labels = dataset is not None and names_labels(dataset)
    check_fragments(models=model, schedules=schedule, datasets=None if own_labels else dataset)
    labelled = open_dataset(dataset, overrides.data_root, custom) if dataset and own_labels else None
    choose_device(device)
    with quiet_imports():
        from stage1_proposals.common.checkpoints import read_tensors
        from stage2_training.config.annotation_files import check_annotations
        from stage2_training.config.compose import finetuning_config
        from stage2_training.config.evaluation_config import evaluation_config
        from stage2_training.config.objects import set_queries
        from stage2_training.config.pieces import describe_pieces
        from stage2_training.evaluation.scores import class_scores, format_scores, percents
        from stage2_training.runs import train as training
        from stage2_training.runs.adapt_rows import queries_in
        from stage2_training.runs.work_dir import WorkDir, find_checkpoint

    run = WorkDir(work_dir).read_config() if work_dir else None
    weights = find_checkpoint(source, last)
    path = Path(out or weights.parent / ("class_agnostic.json" if class_agnostic else "metrics.json"))
    check_writable(path)
    if labelled is None and (dataset or run is None):
        labelled = open_dataset(dataset or options.DEFAULT_DATASET, overrides.data_root, custom)
    labels = None
    if labelled is not None:
        print_lines(*labelled.remarks)
        labels = labelled.fragment
    if run is None and labels is not None:
        # The test images' size and tiles are set below; how the checkpoint was trained is unknown, so tiles are not.
        plain = overrides.model_copy(update={"image_size": None, "tiles": "off"})
        run, labels = finetuning_config(model or options.DEFAULT_MODEL, labels, schedule, overrides=plain), None
        if queries := queries_in(read_tensors(weights), run.model.type):
            set_queries(run, queries)
    config = evaluation_config(run, labels, overrides, class_agnostic)
    check_annotations(config, ["test"])
    print_lines(*filter(None, [describe_pieces(config)]))
    scores = training.evaluate(config, weights, path.parent / "evaluation", overrides.cfg_options)
    with writing(path):
        write_json(path, {**scores, "checkpoint": str(weights)})
    print(f"{weights}\n{format_scores(scores)}")
    if by_class := class_scores(scores):
        kinds = {"AP": "masks", "box_AP": "boxes"}
        found = [name for name in kinds if all(name in values for values in by_class.values())]
        rows = [[one_line(name), *percents(values, found)] for name, values in by_class.items()]
        print(f"\n{format_table(('AP of each class', *(kinds[name] for name in found)), rows)}\n")
    print(f"written to {path}")


def check_run_options(
    composed: str | None, dataset: str | None, class_agnostic: bool, custom: CustomDatasetOptions
) -> None:
    """Refuse options that do not go with --work-dir, whose config has these settings; `composed` are its parts."""
    if composed:
        raise UserError("--model and --schedule do not go with --work-dir: the run's config sets them")
    if dataset and not class_agnostic:
        raise UserError("--dataset with --work-dir needs --class-agnostic: the run's config sets its classes")
    if not dataset and custom != CustomDatasetOptions():
        raise UserError(
            "--test-labels and other options of custom datasets need --dataset: the run's config sets its images"
        )
