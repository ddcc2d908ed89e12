"""A run's config, made one that evaluates: on its own test images, or on those of any data set."""

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

from mmengine.config import Config

from stage1_proposals.common.errors import UserError
from stage2_training.config.compose import read_fragment
from stage2_training.config.overrides import Overrides, override


def evaluation_config(
    run: Config,
    dataset: Mapping[str, Any] | None = None,
    overrides: Overrides | None = None,
    class_agnostic: bool = False,
) -> Config:
    """The config of a run with what evaluation needs.

    Images are resized as the run's own are: as it tests, or where it is of pre-training as it trains. A Saliency
    Prompt variant stays what it is: prompts exist in its losses only, and what it predicts is what the plain
    detector predicts.

    Args:
        run: the config of a pre-training or fine-tuning run.
        dataset: what `read_dataset` gives, whose test images are taken; None: the run's own.
        overrides: of the command line.
        class_agnostic: evaluate objects and detections of all classes as one; else by the run's own metric.

    Raises:
        UserError: no data set is given and the run is of pre-training; no such schedule; or as `override`.
    """
    config, overrides = deepcopy(run), overrides or Overrides()
    if dataset is not None:
        config.test_dataloader = _images(dataset, _resize(run))
        config.test_evaluator = {"type": "MaskAP"}
        config.test_cfg = {"type": "TestLoop"}
    elif "test_dataloader" not in config:
        raise UserError(
            f"{run.work_dir} is a pre-training run, which has no labels to evaluate on; fine-tune first, or name a "
            f"data set with --dataset and --class-agnostic"
        )
    if class_agnostic:
        config.test_evaluator = {"type": "MaskAP", "class_agnostic": True}
    return override(config, overrides)


def _images(dataset: Mapping[str, Any], resize: dict[str, Any] | None) -> Config:
    """The data loader of a data set's test images, as fine-tuning's schedule has it but for their size."""
    schedule = read_fragment("schedules", dataset.get("schedule", "finetune"))
    loader = Config({"val_dataloader": schedule["val_dataloader"]})
    loader.merge_from_dict({"val_dataloader": dataset["val_dataloader"]})
    found = loader.val_dataloader
    if resize is not None:
        pipeline = found.dataset.pipeline
        found.dataset.pipeline = [resize if step["type"] == "Resize" else step for step in pipeline]
    return found


def _resize(run: Config) -> dict[str, Any] | None:
    """The transform that gives a run's images their size; None where it is none of a fixed size."""
    part = "test_dataloader" if "test_dataloader" in run else "train_dataloader"
    return next((step for step in run[part].dataset.pipeline if step["type"] == "Resize"), None)
