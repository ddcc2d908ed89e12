import json

from pipelines.reporting import log
from pipelines.reporting.log import read_log

from stage2_training.evaluation.scores import AP_NAMES


def write(run, start, rows, minutes=1):
    folder = run / start
    (folder / "vis_data").mkdir(parents=True)
    (folder / "vis_data" / "scalars.json").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    filler = "x" * 200_000  # more than is read at an end
    begin, end = "2026/01/01 23:59:30", f"2026/01/02 00:{minutes:02d}:30"
    (folder / f"{start}.log").write_text(f"{begin} - mmengine - INFO - a\n{filler}\n{end} - mmengine - INFO - b\n")


def losses(*steps, loss=1.0):
    return [{"loss": loss, "s0.loss_a": 0.25, "s1.loss_a": 0.5, "loss_b": 0.25, "epoch": s, "step": s} for s in steps]


def scores(epoch, ap):
    return {f"coco/{name}": ap for name in AP_NAMES} | {"step": epoch}


def test_a_run_in_several_starts_is_one(tmp_path):
    write(tmp_path, "20260101_235930", [*losses(1, 2), scores(2, 0.1), *losses(3, 4), scores(4, 0.2)])
    write(tmp_path, "20260102_110000", [*losses(3, loss=0.5), scores(4, 0.3)], minutes=5)
    found = read_log(tmp_path)
    assert found.losses["loss"] == [(1, 1.0), (2, 1.0), (3, 0.5)]  # step 4 was lost with the first start
    assert found.losses["loss_a"] == [(1, 0.75), (2, 0.75), (3, 0.75)]
    assert (found.step, found.epoch) == (3, 3)
    assert [(point["epoch"], point["AP"]) for point in found.curve] == [(2, 0.1), (4, 0.3)]
    assert found.seconds == 120 + 360


def test_of_long_runs_the_same_steps_stay(tmp_path, monkeypatch):
    monkeypatch.setattr(log, "POINTS", 10)
    steps = {}
    for name, count in (("a", 47), ("b", 100)):
        write(tmp_path / name, "20260101_235930", losses(*range(1, count + 1)))
        found = read_log(tmp_path / name)
        steps[name] = [step for step, _ in found.losses["loss"]]
        assert found.step == count
        assert 5 <= len(steps[name]) <= 10
    assert {step for step in steps["b"] if step <= 47} <= set(steps["a"])


def test_without_logs_there_is_nothing(tmp_path):
    found = read_log(tmp_path)
    assert (found.losses, found.curve, found.step, found.seconds) == ({}, [], 0, 0)
