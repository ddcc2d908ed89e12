import json
import subprocess
import sys
from pathlib import Path

import pytest

from stage2_training.evaluation.scores import AP_NAMES, SCORE_NAMES, read_curve, read_scalars

ROOT = Path(__file__).parents[3]


def write_log(path, *lines: dict) -> None:
    path.parent.mkdir(parents=True)
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def evaluation(epoch: int, ap: float) -> dict:
    return {**{f"coco/{name}": ap for name in AP_NAMES}, "time": 1.0, "step": epoch}


def test_joins_the_logs_of_an_interrupted_run(tmp_path):
    losses = {"loss": 2.0, "lr": 1e-4, "epoch": 1, "step": 10}
    write_log(
        tmp_path / "20260101_100000/vis_data/scalars.json", losses, evaluation(1, 0.1), losses, evaluation(2, 0.2)
    )
    write_log(tmp_path / "20260101_110000/vis_data/scalars.json", evaluation(2, 0.25), losses, evaluation(10, 0.3))
    write_log(tmp_path / "evaluation/20260101_120000/vis_data/scalars.json", evaluation(0, 0.9))
    curve = read_curve(tmp_path)
    assert [(point["epoch"], point["AP"]) for point in curve] == [(1, 0.1), (2, 0.25), (10, 0.3)]
    assert set(curve[0]) == {"epoch", *AP_NAMES}
    assert read_curve(tmp_path / "nothing") == []


def test_runs_without_box_scores_are_read(tmp_path):
    scores = {f"coco/{name}": 0.1 for name in SCORE_NAMES}
    write_log(tmp_path / "new/20260101_100000/vis_data/scalars.json", {**scores, "step": 1})
    write_log(tmp_path / "old/20260101_100000/vis_data/scalars.json", evaluation(1, 0.1))
    assert set(read_curve(tmp_path / "new")[0]) == {"epoch", *SCORE_NAMES}
    assert set(read_curve(tmp_path / "old")[0]) == {"epoch", *AP_NAMES}


def test_scores_of_classes_are_in_the_curve(tmp_path):
    logged = evaluation(1, 0.1) | {"coco/AP of cat": 0.5, "coco/box_AP of cat": 0.25, "coco/other": 1.0}
    write_log(tmp_path / "20260101_100000/vis_data/scalars.json", logged)
    (point,) = read_curve(tmp_path)
    assert point == {"epoch": 1, **dict.fromkeys(AP_NAMES, 0.1), "AP of cat": 0.5, "box_AP of cat": 0.25}


@pytest.mark.parametrize(
    "line", ['{"loss": 1', "[1]", "3", '{"loss": 2, "step": NaN}', '{"loss": 1}', "\x00", "[" * 99_999]
)
def test_malformed_lines_are_skipped(tmp_path, line):
    file = tmp_path / "20260101_100000/vis_data/scalars.json"
    write_log(file, {"loss": 1.5, "step": 1, "time": float("inf"), "mode": "train"})
    with open(file, "a") as log:
        log.write(line + "\n" + json.dumps({"loss": 0.5, "step": 2}) + "\n")
    assert read_scalars(tmp_path) == [[{"loss": 1.5, "step": 1}, {"loss": 0.5, "step": 2}]]


def test_runs_are_read_without_torch():
    code = "import sys, stage2_training.evaluation.scores; print(sorted({'torch', 'mmengine'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT).stdout == "[]\n"
