"""The config of a labelled dataset, as `finetuning_config` takes it, for labels that a test writes."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any


def labelled_dataset(labels: Path, classes: Sequence[str]) -> dict[str, Any]:
    """Trained for two epochs, and evaluated, on the same COCO JSON."""
    known = {"data_root": str(labels.parent), "ann_file": labels.name, "metainfo": {"classes": tuple(classes)}}
    loader = {"dataset": {"type": "CocoDataset", **known}}
    return {
        "train_cfg": {"max_epochs": 2},
        "train_dataloader": loader,
        "val_dataloader": loader,
        "val_evaluator": {"type": "MaskAP"},
    }
