"""A labelled dataset as commands name it: a config fragment, or a custom dataset, for which one is made.

A custom dataset is read without PyTorch, which takes seconds to import, so mistakes in labels are told at once.
"""

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stage1_proposals.common.drawing import palette
from stage1_proposals.common.errors import UserError
from stage2_training.config.fragments import fragment_file
from stage2_training.config.run_settings import EPOCHS
from stage2_training.labels import custom


@dataclass(frozen=True)
class LabelledDataset:
    """A dataset as fine-tuning and evaluation take it.

    Attributes:
        fragment: its part of the config, as in `configs/datasets`.
        remarks: what the user should know of it, one line each.
    """

    fragment: Mapping[str, Any]
    remarks: tuple[str, ...] = ()


def names_labels(dataset: str) -> bool:
    """Whether a dataset is named by its labels; a fragment wins, even if a folder has its name."""
    is_fragment = Path(dataset).name == dataset and fragment_file("datasets", dataset).is_file()
    return custom.is_custom(dataset) and not is_fragment


def open_dataset(
    dataset: str, data_root: str | None = None, options: custom.CustomDatasetOptions | None = None
) -> LabelledDataset:
    """Read a dataset's fragment, or check a custom dataset's labels, write them as COCO JSON and make their fragment.

    Args:
        dataset: name or file of a fragment; or COCO JSON, a folder of labelme files or a YOLO set.
        data_root: folder of the images of a custom dataset.
        options: how to use a custom dataset.

    Raises:
        UserError: no such dataset, a fragment that lacks what it must decide, `options` for a dataset that has a
            fragment, or labels that cannot be used.
    """
    if names_labels(dataset):
        prepared = _prepare(dataset, data_root, options)
        return LabelledDataset(custom_fragment(prepared), prepared.remarks)
    if options not in (None, custom.CustomDatasetOptions()):
        raise UserError(
            f"--test-labels, --classes, --held-out-seed and --skip-malformed go with labels of your own, not {dataset}"
        )
    from stage2_training.config.compose import read_dataset  # imports MMEngine

    return LabelledDataset(read_dataset(dataset))


def _prepare(dataset: str, data_root: str | None, options: custom.CustomDatasetOptions | None) -> custom.CustomDataset:
    """Prepare a custom dataset, in the first of several processes."""
    if "torch" not in sys.modules:  # then there is but this process
        return custom.prepare(dataset, data_root, options)
    from stage2_training.engine.distributed import on_rank_zero

    return on_rank_zero(lambda: custom.prepare(dataset, data_root, options))


def custom_fragment(dataset: custom.CustomDataset) -> dict[str, Any]:
    """A custom dataset as a config in `configs/datasets/` states one."""
    metainfo = {"classes": dataset.classes, "palette": palette(len(dataset.classes))}

    def loader(labels: Path, image_root: Path, **more: Any) -> dict[str, Any]:
        # With an absolute `ann_file`, `data_root` is the folder of the images alone.
        paths = {
            "data_root": str(image_root.absolute()),
            "ann_file": str(labels.absolute()),
            "data_prefix": {"img": ""},
        }
        return {"dataset": {"type": "CocoDataset", **paths, "metainfo": metainfo, **more}}

    return {
        "train_cfg": {"max_epochs": EPOCHS},
        "length_by_images": True,
        "train_dataloader": loader(dataset.train, dataset.train_images, filter_cfg={"filter_empty_gt": True}),
        "val_dataloader": loader(dataset.test, dataset.test_images, test_mode=True),
        "val_evaluator": {"type": "MaskAP"},
    }
