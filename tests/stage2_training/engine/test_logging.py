import io
import logging
import re
from pathlib import Path

import pytest
import torch
from mmengine.evaluator import BaseMetric
from mmengine.logging import MMLogger
from mmengine.model import BaseModel
from mmengine.registry import METRICS
from mmengine.runner import Runner

import stage2_training.data
import stage2_training.engine.checkpoints
import stage2_training.engine.loop  # noqa: F401 (register what the config names)
from stage2_training.engine.logging import score_lines, silence_console


def test_only_warnings_and_errors_of_the_log_reach_the_terminal(tmp_path):
    logger = logging.Logger("run")
    terminal = io.StringIO()
    logger.addHandler(logging.StreamHandler(terminal))
    logger.addHandler(logging.FileHandler(tmp_path / "run.log"))
    silence_console(logger)
    logger.info("Config: ...")
    logger.warning("no object was sampled")
    logger.error("no space left")
    assert terminal.getvalue() == "no object was sampled\nno space left\n"
    assert len((tmp_path / "run.log").read_text().splitlines()) == 3


def test_scores_are_in_percent_and_those_without_objects_left_out():
    scores = {"coco/AP": 0.125, "coco/AP50": 0.0, "coco/AP_L": -1.0, "time": 1.0}
    assert score_lines(scores) == ["masks  AP 12.5  AP50  0.0"]
    both = score_lines(scores | {"coco/box_AP": 1.0, "coco/box_AR@20": 0.5})
    assert both[1:] == ["boxes  AP 100.0  AR@20 50.0"]


def test_scores_of_another_metric_are_printed_by_name():
    assert score_lines({"accuracy": 0.5, "recall": 1}) == ["accuracy 0.5  recall 1"]


class Line(BaseModel):
    def __init__(self) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(1, 1)

    def forward(self, inputs: torch.Tensor, mode: str) -> dict[str, torch.Tensor] | list[None]:
        return {"loss": self.linear(inputs).square().mean()} if mode == "loss" else [None]


class FixedScores(BaseMetric):
    def process(self, data_batch: object, data_samples: object) -> None:
        self.results.append(0)

    def compute_metrics(self, results: list) -> dict[str, float]:
        return {"coco/AP": 0.125, "coco/box_AP": 0.25}


def test_a_run_prints_short_lines_and_logs_the_rest(tmp_path: Path, capsys: pytest.CaptureFixture):
    METRICS.register_module(module=FixedScores, force=True)
    loader = {"dataset": [{"inputs": torch.ones(1)}] * 5, "batch_size": 1, "collate_fn": {"type": "default_collate"}}
    runner = Runner(
        Line(),
        str(tmp_path),
        train_dataloader={**loader, "sampler": {"type": "ResumableSampler", "shuffle": True}},
        val_dataloader={**loader, "sampler": {"type": "DefaultSampler", "shuffle": False}},
        val_evaluator={"type": "FixedScores"},
        train_cfg={"type": "ResumableEpochLoop", "max_epochs": 2, "val_interval": 2},
        val_cfg={},
        optim_wrapper={"optimizer": {"type": "SGD", "lr": 0.001}},
        default_hooks={
            "logger": {"type": "ProgressLoggerHook", "interval": 2},
            "checkpoint": {"type": "AtomicCheckpointHook", "interval": 100},
        },
        randomness={"seed": 0},
        default_scope="mmdet",
        experiment_name="progress",
    )
    silence_console(MMLogger.get_current_instance())
    capsys.readouterr()
    runner.train()
    lines = [line for line in capsys.readouterr().out.splitlines() if " - WARNING - " not in line]
    time = r"\d\d:\d\d:\d\d"
    rest = r"loss \d+\.\d{3}  lr 1\.0e-03  \d+\.\d\d s/step  \d:\d\d:\d\d left"
    patterns = [rf"{time}  epoch {epoch}/2  step {step}/5  {rest}" for epoch in (1, 2) for step in (2, 4)]
    patterns += [rf"{time}  evaluating {image}/5" for image in (2, 4)]
    patterns += [rf"{time}  epoch 2  masks  AP 12\.5", r" {19}boxes  AP 25\.0"]
    assert len(lines) == len(patterns)
    for line, pattern in zip(lines, patterns, strict=True):
        assert re.fullmatch(pattern, line)
    (log,) = tmp_path.glob("*/*.log")
    assert "Epoch(train) [2][4/5]" in log.read_text()
    assert (log.parent / "vis_data" / "scalars.json").read_text().count('"loss"') == 4
