"""Fine-tuning as a function: what `make finetune` calls, and what a notebook can call."""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stage1_proposals.common.files import write_json, writing
from stage1_proposals.common.system import choose_device, configure_process
from stage2_training import quiet_imports
from stage2_training.config.datasets import names_labels, open_dataset
from stage2_training.config.fragments import check_fragments
from stage2_training.config.run_settings import DEFAULT_MODEL, Overrides
from stage2_training.labels.custom import CustomDatasetOptions, name_of
from stage2_training.runs.init_options import check_init

if TYPE_CHECKING:
    from stage2_training.runs.work_dir import Result


def finetune(
    dataset: str,
    *,
    model: str = DEFAULT_MODEL,
    init: str = "sp",
    checkpoint: str | None = None,
    weights: str | None = None,
    schedule: str | None = None,
    work_dir: str | None = None,
    device: str | None = None,
    overrides: Overrides | None = None,
    custom: CustomDatasetOptions | None = None,
    command: Sequence[str] | None = None,
    tell: Callable[[str], None] = print,
) -> "Result":
    """Fine-tune a detector on a labelled dataset, evaluating it at intervals; called again, it resumes.

    Args:
        dataset: name or file of a config in `configs/datasets`, or labels: COCO JSON, a labelme folder, a YOLO set.
        model: name or file of a config in `configs/models`.
        init: initial weights, as the command's `--init`.
        checkpoint: with `sp`, `pseudo` or `coco`, the checkpoint or pre-training's work directory.
        weights: file of the backbone's weights.
        schedule: name or file of a config in `configs/schedules`; None: the device decides, and the dataset.
        work_dir: None: `work_dirs/finetune/DATASET/MODEL-INIT`.
        device: `cpu`, `cuda`, or None for the GPU if there is one. A process can have but one.
        overrides: changes of the settings.
        custom: how labels of one's own are divided and read.
        command: what was typed, for the run's records.
        tell: called with lines that the user should know.

    Returns:
        The run's last checkpoint, and its scores: `outcome["AP"]`, or `box_AP` of a model without masks, and others in
        [0, 1].

    Raises:
        UserError: something that is named is not there or cannot be used.
    """
    configure_process()
    overrides = overrides or Overrides()
    check_init(init, checkpoint=checkpoint, weights=weights)
    # What is named is looked for, and labels are checked, before the imports below, which take seconds.
    own_labels = names_labels(dataset)
    check_fragments(models=model, schedules=schedule, datasets=None if own_labels else dataset)
    labels = open_dataset(dataset, overrides.data_root, custom) if own_labels else None
    device = choose_device(device)
    with quiet_imports():
        from stage2_training.config.annotation_files import check_annotations
        from stage2_training.config.compose import default_schedule, finetuning_config
        from stage2_training.config.image_sizes import describe_images
        from stage2_training.engine.best_checkpoint import describe_stop
        from stage2_training.evaluation.curves import plot_curves
        from stage2_training.evaluation.scores import read_curve
        from stage2_training.runs import initial_weights
        from stage2_training.runs.train import train
        from stage2_training.runs.work_dir import RESUME_HINT, WorkDir

    labels = labels or open_dataset(dataset, overrides.data_root, custom)
    for remark in labels.remarks:
        tell(remark)
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
            plot_curves({init_name: curve}, work.path / "curve.png", "AP" if "AP" in curve[-1] else "box_AP")
        return {**curve[-1], **describe_stop(work.path, curve[-1]["epoch"], config.train_cfg.max_epochs)}

    chosen = f"{device}, schedule {schedule}, {describe_images(config)}"
    purpose = f"Fine-tuning {model} on {dataset} from {init} ({chosen})"
    typed = sys.argv if command is None else command
    return train(work, config, start, purpose, final_scores, typed, overrides.cfg_options)
