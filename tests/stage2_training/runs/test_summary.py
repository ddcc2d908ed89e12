"""What a run's directory says of unfinished, damaged and finished runs."""

import json
import shutil

import pytest

from stage1_proposals.common.files import exclusive_lock
from stage2_training.config.compose import finetuning_config
from stage2_training.runs.summary import RunSummary
from stage2_training.runs.work_dir import WorkDir
from tests.made_runs import make_run


def test_how_far_a_run_came(tmp_path):
    half = make_run(tmp_path / "half", 2)
    assert RunSummary.read(half).status == "interrupted"
    with exclusive_lock(half):
        assert RunSummary.read(half).status == "running"
    assert RunSummary.read(make_run(tmp_path / "all", 4, finished=False)).status == "interrupted"
    new = make_run(tmp_path / "new", 0)
    assert RunSummary.read(new).status == "not started"
    (new / "iter_3.pth").touch()
    (new / "last_checkpoint").write_text("iter_3.pth")
    assert RunSummary.read(new).status == "interrupted"  # before the first line of its log


@pytest.mark.parametrize(("step", "failed"), [(21, True), (20, False)])
def test_a_run_that_went_on_after_its_failure_has_none(tmp_path, step, failed):
    run = make_run(tmp_path / "run", 2)
    (run / "non_finite.json").write_text(json.dumps({"step": step, "processes": []}))
    assert RunSummary.read(run).status == ("failed" if failed else "interrupted")
    (run / "finished.json").write_text('{"checkpoint": "iter_40.pth"}')
    assert RunSummary.read(run).status == "finished"


def test_a_run_in_several_starts_is_one(tmp_path):
    run = make_run(tmp_path / "run", 2)
    second = run / "20260102_100000" / "vis_data"
    second.mkdir(parents=True)
    rows = [{"loss": 7.0, "epoch": 2, "step": step} for step in (11, 12)]
    (second / "scalars.json").write_text("".join(json.dumps(row) + "\n" for row in rows))
    summary = RunSummary.read(run)  # the first start went to step 20, but the second resumed after step 10
    assert (summary.last_step, summary.last_loss) == (12, 7.0)


def test_without_logs_the_curve_is_that_of_its_file(tmp_path):
    run = make_run(tmp_path / "run")
    shutil.rmtree(run / "20260101_100000")
    (run / "curve.json").write_text(json.dumps([{"epoch": 4, "AP": 0.5}, {"epoch": "x"}, 3]))
    assert RunSummary.read(run).curve == [{"epoch": 4, "AP": 0.5}]


@pytest.mark.parametrize("model", ["knet", "mask2former_lite0", "queryinst_lite0"])
def test_settings_are_those_of_the_config(tmp_path, model):
    work = WorkDir(tmp_path / "run")
    config = finetuning_config(model, "ctw1500")
    work.path.mkdir()
    work.create_or_verify(config)
    summary = RunSummary.read(work.path)
    assert summary.settings == json.loads(json.dumps(work.read_config().to_dict()))
    assert summary.setting("model.type") == config.model.type
    assert summary.setting("model.no.such", 3) == 3
    assert not summary.pretraining
    assert summary.dataset.endswith(config.val_dataloader.dataset.ann_file)


def test_damaged_files_are_named_and_taken_for_missing(tmp_path):
    run = make_run(tmp_path / "run")
    (run / "config.json").write_text("[]")
    (run / "finished.json").write_text("{")
    summary = RunSummary.read(run)
    assert [problem.split(": ")[0] for problem in summary.problems] == ["config.json", "finished.json"]
    assert (summary.status, summary.settings, summary.model) == ("interrupted", {}, "not recorded")
    assert summary.scores["AP"] == 0.25  # of the last evaluation
