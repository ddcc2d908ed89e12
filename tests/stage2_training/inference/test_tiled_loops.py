"""A run in tiles is evaluated in tiles, as it predicts."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stage1_proposals.common.coco import read_coco
from stage1_proposals.common.coco_scores import labelled_objects
from stage1_proposals.common.masks import mask_areas, to_xywh
from stage1_proposals.common.system import choose_device
from stage2_training.config.compose import finetuning_config, pretraining_config
from stage2_training.config.evaluation_config import evaluation_config
from stage2_training.config.run_settings import Overrides
from stage2_training.evaluation.coco_metric import score_detections
from stage2_training.evaluation.scores import percents
from stage2_training.inference.predictor import Predictor
from stage2_training.runs import train as training
from tests import tiny_knet

SIDE = 32


def finetuning(root: Path, *options: str, **overrides: Any) -> Any:
    given = {"tiles": str(SIDE), **overrides}
    settings = Overrides(data_root=str(root), workers=0, cfg_options=(*tiny_knet.MODEL, *options), **given)
    return finetuning_config("knet_lite0", "demo", schedule="finetune_demo", overrides=settings)


@pytest.fixture
def root(write_labels: Any) -> Path:
    choose_device("cpu")
    return write_labels(images=3, size=(48, 80))


def test_the_scores_are_those_of_what_is_predicted(root: Path, tmp_path: Path) -> None:
    config = finetuning(root)
    run = tiny_knet.untrained_run(tmp_path / "run", config)
    scores = training.evaluate(evaluation_config(config), run / "iter_1.pth", tmp_path / "evaluation")
    predictor, whole = (Predictor.from_run(run, min_score=0, **settings) for settings in ({}, {"tiles": 0}))
    document = read_coco(Path(config.test_evaluator.ann_file))
    detections = []
    for image in document.images:
        path = next(root.rglob(image.file_name))
        found = predictor(path)
        assert found.rle != whole(path).rle
        rows = zip(found.rle, to_xywh(found.boxes), found.scores, mask_areas(found.rle), strict=True)
        detections += [
            {
                "image_id": image.id,
                "category_id": next(iter(document.categories)),
                "segmentation": mask,
                "bbox": box.tolist(),
                "score": float(score),
                "area": int(area),
            }
            for mask, box, score, area in rows
        ]
    objects = labelled_objects(document)
    expected = score_detections(document.images, objects, detections, list(document.categories))
    assert percents(scores, list(expected)) == percents(expected, list(expected))
    assert len(detections) > 3 * 6


def test_other_labels_are_evaluated_in_the_runs_tiles(root: Path, tmp_path: Path) -> None:
    """Also those that have fewer classes than the run's model, which count as one."""
    config = finetuning(root, "model.roi_head.num_classes=3")
    run = tiny_knet.untrained_run(tmp_path / "run", config)
    dataset = {"val_dataloader": config.val_dataloader.to_dict()}
    other = evaluation_config(config, dataset, class_agnostic=True)
    assert other.test_cfg == {"type": "TiledTestLoop", "side": SIDE}
    assert "AP" in training.evaluate(other, run / "iter_1.pth", tmp_path / "evaluation")


def test_an_evaluation_can_see_other_tiles_or_none(root: Path) -> None:
    config = finetuning(root)
    for given, loop in (
        (Overrides(), {"type": "TiledTestLoop", "side": SIDE}),
        (Overrides(tiles="48", image_size=64), {"type": "TiledTestLoop", "side": 48}),
        (Overrides(tiles="off"), {"type": "TestLoop"}),
    ):
        assert evaluation_config(config, overrides=given).test_cfg == loop
    whole = evaluation_config(finetuning(root, tiles="off"), overrides=Overrides(tiles="48"))
    assert whole.test_cfg == {"type": "TiledTestLoop", "side": 48}
    assert "stage2_training.inference.tiled_loops" in whole.custom_imports.imports


@pytest.mark.parametrize(("epochs", "interval"), [(1, 5), (48, 9), (400, 20)])
def test_evaluations_in_tiles_are_rarer_but_a_few_remain(root: Path, epochs: int, interval: int) -> None:
    assert finetuning(root, epochs=epochs).train_cfg.val_interval == interval


def test_a_loop_of_the_users_own_stays(root: Path) -> None:
    config = finetuning(root, tiles="off")
    config.test_cfg = {"type": "MyLoop"}
    assert evaluation_config(config, overrides=Overrides(tiles="48")).test_cfg == {"type": "MyLoop"}


def test_pretraining_sees_tiles(write_shards: Any, make_record: Any, rectangles: Any, tmp_path: Path) -> None:
    shards = write_shards([[make_record(1, "a.png", rectangles([(0, 0, 8, 8)], 64, 64), np.zeros((1, 4)))]])
    config = pretraining_config(
        "knet_lite0", "pretrain_demo", shards, overrides=Overrides(tiles="32", cfg_options=tiny_knet.MODEL)
    )
    assert [step["type"] for step in config.train_dataloader.dataset.pipeline[1:3]] == [
        "LoadPseudoLabels",
        "RandomTile",
    ]
    assert "val_cfg" not in config
    assert Predictor.from_run(tiny_knet.untrained_run(tmp_path / "run", config)).tiles == 32
