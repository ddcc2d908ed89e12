import json

import numpy as np
from PIL import Image

from stage2_training.evaluation import AP_NAMES, plot_curves, read_curve


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


def test_draws_every_curve(tmp_path):
    curves = {"sp": [{"epoch": 1, "AP": 0.1}, {"epoch": 2, "AP": 0.3}], "imagenet": [{"epoch": 2, "AP": 0.2}]}
    plot_curves(curves, tmp_path / "two.png")
    plot_curves({"sp": curves["sp"]}, tmp_path / "one.png")
    two, one = (np.asarray(Image.open(tmp_path / name)) for name in ("two.png", "one.png"))
    assert two.shape == one.shape
    assert (two != one).any()
