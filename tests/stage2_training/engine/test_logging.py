import io
import logging
from types import SimpleNamespace

from mmengine.runner import LogProcessor

from stage2_training.engine import quieten
from stage2_training.engine.logging import BriefLogProcessor, score_lines


def test_only_progress_and_needful_warnings_reach_the_terminal(tmp_path):
    logger = logging.Logger("run")
    terminal = io.StringIO()
    logger.addHandler(logging.StreamHandler(terminal))
    logger.addHandler(logging.FileHandler(tmp_path / "run.log"))
    quieten(logger)
    logger.info("Config: ...")
    logger.warning("loss is NaN")
    logger.warning('"FileClient" will be deprecated in future.')
    logger.warning("backbone.conv1.weight is skipped since its requires_grad=False")
    for message in ("epoch 1/2  step 3/4  loss 1.0", "Exp name: config_2026"):
        logger.handle(logger.makeRecord("run", logging.INFO, "mmengine/hooks/logger_hook.py", 1, message, (), None))
    assert [line.split("  ", 1)[1] for line in terminal.getvalue().splitlines()] == [
        "loss is NaN",
        "epoch 1/2  step 3/4  loss 1.0",
    ]
    assert len((tmp_path / "run.log").read_text().splitlines()) == 6


def test_scores_are_in_percent_and_those_without_objects_left_out():
    scores = {"coco/AP": 0.125, "coco/AP50": 0.0, "coco/AP_L": -1.0, "time": 1.0}
    assert score_lines(scores) == ["masks  AP 12.5  AP50  0.0"]
    both = score_lines(scores | {"coco/box_AP": 1.0, "coco/box_AR@20": 0.5})
    assert both[1:] == ["boxes  AP 100.0  AR@20 50.0"]
    assert score_lines({"time": 1.0}) == []


def test_masks_and_boxes_stand_one_under_the_other(monkeypatch):
    scores = {"coco/AP": 0.125, "coco/box_AP": 0.25}
    monkeypatch.setattr(LogProcessor, "get_log_after_epoch", lambda *args: (scores, "all"))
    _, text = BriefLogProcessor().get_log_after_epoch(SimpleNamespace(epoch=5), 0, "val")
    assert ("12:34:56  " + text).splitlines() == [
        "12:34:56  epoch 5  masks  AP 12.5",
        "                   boxes  AP 25.0",
    ]
