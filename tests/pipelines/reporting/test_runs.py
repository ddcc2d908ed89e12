import json
from dataclasses import asdict

import pytest
from pipelines.reporting.notes import Notes
from pipelines.reporting.runs import read_run

from stage1_proposals.common.files import exclusive_lock
from stage2_training.saliency_prompt.settings import SaliencyPromptSettings


def told(path):
    notes = Notes(path.parent)
    run = read_run(path, notes)
    assert notes.lines == []
    return run.status, run.told


def test_how_far_a_run_came(tmp_path, make_run):
    half = make_run(tmp_path / "half", 2)
    assert told(half) == ("interrupted", "interrupted in epoch 2 of 4")
    with exclusive_lock(half):
        assert told(half) == ("running", "running, epoch 2 of 4")
    assert told(make_run(tmp_path / "all", 4, finished=False)) == ("interrupted", "interrupted in epoch 4 of 4")
    new = make_run(tmp_path / "new", 0)
    assert told(new) == ("not begun", "not begun")
    (new / "iter_3.pth").touch()
    (new / "last_checkpoint").write_text("iter_3.pth")
    assert told(new) == ("interrupted", "interrupted")  # before the first line of its log


@pytest.mark.parametrize(("step", "failed"), [(21, True), (20, False)])
def test_a_run_that_came_past_its_failure_has_none(tmp_path, make_run, step, failed):
    run = make_run(tmp_path / "run", 2)
    (run / "non_finite.json").write_text(json.dumps({"step": step, "processes": []}))
    assert told(run)[0] == ("failed" if failed else "interrupted")
    (run / "finished.json").write_text("{}")
    assert told(run)[0] == "finished"


@pytest.mark.parametrize(
    ("command", "model", "dataset"),
    [
        (["python", "--model", "queryinst", "--dataset", "labels/mine.json"], "queryinst", "mine"),
        (["python", "--model=a/b.py"], "b", "tiny"),
        (["python", "--cfg-options", "--model"], "", "tiny"),
        (["python"], "KNet", "tiny"),
    ],
)
def test_names_are_as_typed_else_as_the_config_has_them(tmp_path, make_run, command, model, dataset):
    run = read_run(make_run(tmp_path / "run", command=command), Notes(tmp_path))
    assert (run.model, run.dataset) == (model or "KNet", dataset)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({}, "cosine"),
        ({"kernel_loss_weight": 0}, "cosine, kernel_loss_weight=0"),
        ({"matching": "random", "detach": False, "drop_prob": 0.05}, "random, detach=False, drop_prob=0.05"),
    ],
)
def test_prompts_are_told_by_what_is_not_the_default(tmp_path, make_run, options, told):
    prompts = asdict(SaliencyPromptSettings(320, **options)) | {"of_another_version": 1}
    run = read_run(make_run(tmp_path / "run", pretraining=True, prompts=prompts), Notes(tmp_path))
    assert run.prompts == told
    assert read_run(make_run(tmp_path / "plain", pretraining=True), Notes(tmp_path)).prompts == "off"


def test_checkpoints_are_in_order(tmp_path, make_run):
    path = make_run(tmp_path / "run")
    for name in ("iter_20.pth", "iter_3.pth", "other.pth"):
        (path / name).write_bytes(b"12345")
    run = read_run(path, Notes(tmp_path))
    assert run.checkpoints == {"initial.pth": 2_000_000, "other.pth": 5, "iter_3.pth": 5, "iter_20.pth": 5}
