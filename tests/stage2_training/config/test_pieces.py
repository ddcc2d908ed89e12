"""Masks are in one piece where the labelled objects are, unless the user says otherwise."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stage1_proposals.common.masks import encode_masks, mask_fields
from stage2_training.config.compose import finetuning_config
from stage2_training.config.pieces import describe_pieces, share_in_one_piece
from stage2_training.config.run_settings import Overrides
from tests.labelled_sets import labelled_dataset

MODELS = Path(__file__).parents[3] / "configs" / "models"
SQUARE, APART = [1, 1, 9, 1, 9, 9, 1, 9], [20, 20, 29, 20, 29, 29, 20, 29]
ONE, TWO, NONE = [SQUARE], [SQUARE, APART], None
BRIDGED = [[1, 1, 9, 1, 9, 9, 20, 20, 29, 20, 29, 29, 20, 29, 20, 20, 9, 9, 1, 9]]  # by a line without width
TOUCHING = [SQUARE, [9, 1, 18, 1, 18, 9, 9, 9]]


def run_lengths(*squares: tuple[int, int]) -> dict[str, Any]:
    mask = np.zeros((1, 48, 64), bool)
    for row, column in squares:
        mask[0, row : row + 8, column : column + 8] = True
    return mask_fields(encode_masks(mask)[0])["segmentation"]


@pytest.fixture
def labelled(tmp_path: Path) -> Any:
    """Segmentations -> a dataset's config with an image of 64 x 48 that has them."""

    def write(segmentations: list[Any], of_another_class: int = 0) -> dict[str, Any]:
        annotations = [
            {"image_id": 0, "category_id": 1, "area": 64, "iscrowd": 0, "segmentation": each} for each in segmentations
        ]
        # Neither crowds nor objects of other classes count.
        annotations += [{**annotations[0], "iscrowd": 1, "segmentation": TWO}] * 9 if annotations else []
        annotations += [{**annotations[0], "category_id": 2, "segmentation": TWO}] * 9 if annotations else []
        for each in annotations[:of_another_class]:
            each["category_id"] = 3
        content = {
            "images": [{"id": 0, "width": 64, "height": 48}],
            "annotations": annotations,
            "categories": [{"id": 1, "name": "a"}, {"id": 2, "name": "b"}, {"id": 3, "name": "c"}],
        }
        (tmp_path / "labels.json").write_text(json.dumps(content))
        return labelled_dataset(tmp_path / "labels.json", ("a", "c"))

    return write


def has_one_piece(dataset: Any, model: str = "knet_lite0", **overrides: Any) -> bool:
    config = finetuning_config(model, dataset, "finetune_demo", overrides=Overrides(**overrides))
    return describe_pieces(config) is not None


@pytest.mark.parametrize(
    ("segmentations", "share"),
    [
        ([ONE] * 20, 1.0),
        ([ONE] * 19 + [TWO], 0.95),
        ([ONE] * 18 + [TWO] * 2, 0.9),
        ([TOUCHING, run_lengths((1, 1)), run_lengths((1, 1), (9, 9))], 1.0),  # at an edge, and at a corner
        ([ONE, run_lengths((1, 1), (20, 30))], 0.5),
        ([ONE, BRIDGED], 0.5),
        ([], 0.0),
    ],
)
def test_the_share_of_objects_in_one_piece_decides(labelled: Any, segmentations: list[Any], share: float) -> None:
    dataset = labelled(segmentations)
    config = finetuning_config("knet_lite0", dataset, "finetune_demo")
    assert share_in_one_piece(config.train_dataloader.dataset) == pytest.approx(share)
    assert (describe_pieces(config) is not None) == (share >= 0.95)
    assert config.model.test_cfg.get("one_piece", False) == (share >= 0.95)


def test_each_class_must_be_in_one_piece(labelled: Any) -> None:
    assert has_one_piece(labelled([ONE] * 100, of_another_class=2))
    assert not has_one_piece(labelled([TWO] * 2 + [ONE] * 98, of_another_class=2))


def test_all_images_of_the_labels_decide(labelled: Any) -> None:
    """Not those that a seed draws, of which few would decide by chance."""
    dataset = labelled([ONE, TWO])
    dataset["train_dataloader"] = {"dataset": {**dataset["train_dataloader"]["dataset"], "indices": []}}
    config = finetuning_config("knet_lite0", dataset, "finetune_demo")
    assert share_in_one_piece(config.train_dataloader.dataset) == 0.5


def test_no_more_than_a_thousand_objects_are_looked_at(labelled: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    monkeypatch.setattr("stage2_training.config.pieces.to_mask", lambda *given: seen.append(given) or np.ones((2, 2)))
    monkeypatch.setattr("stage2_training.config.pieces.count_pieces", lambda mask: 1)
    assert has_one_piece(labelled([TWO] * 2500))
    assert len(seen) == 1000


@pytest.mark.parametrize(
    ("model", "setting"),
    [("knet_lite0", "one_piece"), ("queryinst_lite0", "rcnn.one_piece"), ("mask2former_lite0", "one_piece")],
)
def test_the_user_can_keep_all_parts(labelled: Any, model: str, setting: str) -> None:
    dataset = labelled([ONE] * 3)
    config = finetuning_config(model, dataset, "finetune_demo")
    assert f"--cfg-options model.test_cfg.{setting}=False keeps all" in (describe_pieces(config) or "")
    assert not has_one_piece(dataset, model, cfg_options=[f"model.test_cfg.{setting}=False"])


def test_a_model_file_decides_first(labelled: Any, tmp_path: Path) -> None:
    model = tmp_path / "model.py"
    for given in (True, False):
        model.write_text(f'_base_ = "{MODELS / "knet_lite0.py"}"\nmodel = dict(test_cfg=dict(one_piece={given}))\n')
        assert has_one_piece(labelled([TWO if given else ONE]), str(model)) is given
    model.write_text(f'_base_ = "{MODELS / "knet_lite0.py"}"\nmodel = dict(test_cfg=dict(_delete_=True))\n')
    assert not has_one_piece(labelled([ONE]), str(model))


@pytest.mark.parametrize("model", ["mask_rcnn_lite0", "solov2_lite0", "detr_lite0"])
def test_other_models_are_left_alone(labelled: Any, model: str) -> None:
    assert not has_one_piece(labelled([ONE] * 3), model)


@pytest.mark.parametrize("segmentation", [NONE, [], [[1, 2]], {"size": [9, 9], "counts": "0"}])
def test_labels_without_readable_masks_change_nothing(labelled: Any, segmentation: Any) -> None:
    assert not has_one_piece(labelled([segmentation] * 3))
