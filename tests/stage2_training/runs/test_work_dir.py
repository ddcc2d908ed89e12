import json

import pytest
from mmengine.config import Config

from stage1_proposals.common.errors import UserError
from stage2_training.runs.work_dir import Result, WorkDir, flatten


def config(**changes) -> Config:
    made = Config(
        {
            "model": {"type": "KNet", "scale": (1333, 800)},
            "optim_wrapper": {"optimizer": {"lr": 1e-4}},
            "train_dataloader": {"num_workers": 2, "dataset": {"shards": "a", "pipeline": [{"type": "LoadRGBImage"}]}},
        }
    )
    made.merge_from_dict(changes)
    return made


def test_claims_a_directory_with_a_plain_config(tmp_path):
    work = WorkDir(tmp_path / "run")
    work.create_or_verify(config())
    read = Config.fromfile(tmp_path / "run" / "config.py")
    assert read.model.type == "KNet"
    assert read.load_from == str(tmp_path / "run" / "initial.pth")
    assert work.read_config().to_dict() == read.to_dict()


def start(path) -> WorkDir:
    """A run that has a checkpoint."""
    work = WorkDir(path)
    work.create_or_verify(config())
    (path / "iter_1.pth").touch()
    (path / "last_checkpoint").write_text("iter_1.pth")
    return work


def test_a_run_that_left_no_checkpoint_begins_anew(tmp_path):
    work = WorkDir(tmp_path)
    work.create_or_verify(config())
    work.initial.touch()
    log = tmp_path / "20260101_100000" / "vis_data" / "scalars.json"
    log.parent.mkdir(parents=True)
    log.touch()
    leftovers = [tmp_path / "commands.jsonl", tmp_path / "non_finite.json"]
    for path in leftovers:
        path.touch()
    work.create_or_verify(config(**{"optim_wrapper.optimizer.lr": 2e-4}))
    assert work.read_config().optim_wrapper.optimizer.lr == 2e-4
    assert not work.initial.exists()
    assert not log.exists()
    assert not any(path.exists() for path in leftovers)


def test_the_same_run_goes_on_from_another_place_with_other_workers_and_masks(tmp_path):
    start(tmp_path / "run")
    (tmp_path / "run").rename(tmp_path / "moved")
    changeable = {
        "train_dataloader.num_workers": 0,
        "train_dataloader.batch_size": 3,
        "train_dataloader.dataset.shards": "elsewhere",
        "model.test_cfg.one_piece": True,  # of masks that are found
    }
    WorkDir(tmp_path / "moved").create_or_verify(config(**changeable))
    assert WorkDir(tmp_path / "moved").read_config().train_dataloader.num_workers == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"optim_wrapper.optimizer.lr": 2e-4}, r"optim_wrapper\.optimizer\.lr is 0\.0001 there, 0\.0002 now;"),
        (
            {"model.extra": 1, "pseudo_labels.images": 3},
            r"run with other pseudo labels: pseudo_labels\.images is 'not set'",
        ),
        (
            {"initialisation.kind": "sp"},
            r"run with other initial weights: initialisation\.kind is 'not set' there, 'sp'",
        ),
        (
            {"model.extra": 1, "tiles": 128},
            r"run with other tiles \(--tiles, TILES=\): tiles is 'not set' there, 128 now \(and 1 more\);",
        ),
        ({"model.extra": True}, r"model\.extra is 'not set' there, True now;"),
        ({"model.scale": (1, 2)}, r"model\.scale\.0 is 1333 there, 1 now \(and 1 more\);"),
        (
            {"train_dataloader.dataset.pipeline.0.type": "Other"},
            r"pipeline\.0\.type is 'LoadRGBImage' there, 'Other' now",
        ),
    ],
)
def test_another_run_is_refused_naming_the_difference(tmp_path, change, message):
    work = start(tmp_path)
    before = work.config_file.read_text()
    with pytest.raises(UserError, match=message):
        work.create_or_verify(config(**change))
    assert work.config_file.read_text() == before


def test_a_finished_run_whose_checkpoints_have_gone_is_still_that_run(tmp_path):
    work = start(tmp_path)
    work.finish(Result("iter_1.pth", {"AP": 0.5}))
    (tmp_path / "iter_1.pth").unlink()
    work.create_or_verify(config())
    with pytest.raises(UserError, match=r"holds a run with other settings: optim_wrapper\.optimizer\.lr is 0\.0001"):
        work.create_or_verify(config(**{"optim_wrapper.optimizer.lr": 2e-4}))
    assert work.read_config().optim_wrapper.optimizer.lr == 1e-4
    assert work.result() == Result("iter_1.pth", {"AP": 0.5})


def test_a_run_of_another_version_is_refused_in_one_line(tmp_path):
    work = start(tmp_path)
    work.config_file.write_text("custom_imports = dict(imports=['gone'])\nmodel = dict(type='KNet')\n")
    for use in (work.read_config, lambda: work.create_or_verify(config())):
        with pytest.raises(UserError, match=r"holds a run of another version of this program, .* another --work-dir"):
            use()
    work.latest_checkpoint().unlink()
    work.create_or_verify(config())  # nothing was trained: it begins anew
    assert work.read_config().model.type == "KNet"


def test_finds_the_latest_checkpoint(tmp_path):
    work = WorkDir(tmp_path)
    assert work.latest_checkpoint() is None
    with pytest.raises(UserError, match=r": has no checkpoint yet$"):
        work.require_checkpoint()
    for step in (9, 10):
        (tmp_path / f"iter_{step}.pth").touch()
    (tmp_path / "iter_best.pth").touch()
    (tmp_path / "last_checkpoint").write_text("/where/it/was/written/iter_9.pth")
    assert work.latest_checkpoint() == tmp_path / "iter_9.pth"
    (tmp_path / "last_checkpoint").write_text("")  # killed while it was written
    assert work.latest_checkpoint() == work.require_checkpoint() == tmp_path / "iter_10.pth"


def test_remembers_its_result(tmp_path):
    work = WorkDir(tmp_path)
    assert work.result() is None
    work.finish(Result("iter_1.pth", {"AP": 0.5}))
    assert work.result() == Result("iter_1.pth", {"AP": 0.5})
    assert json.loads((tmp_path / "finished.json").read_text()) == {"AP": 0.5, "checkpoint": "iter_1.pth"}
    for text in ("", "[]", "3", "{}", '{"AP": 1'):
        (tmp_path / "finished.json").write_text(text)
        assert work.result() is None


def test_a_place_that_cannot_be_written_is_a_user_error(tmp_path):
    for name, write in (
        ("config.py", lambda work: work.create_or_verify(config())),
        ("finished.json", lambda work: work.finish(Result("", {}))),
    ):
        work = WorkDir(tmp_path / name)
        (work.path / name).mkdir(parents=True)
        with pytest.raises(UserError, match=f"{work.path / name}: cannot be written"):
            write(work)


def test_no_run_is_a_user_error(tmp_path):
    with pytest.raises(UserError, match="no run here"):
        WorkDir(tmp_path).read_config()


def test_flatten_treats_lists_and_tuples_alike():
    nested = {"a": {"b": (1, [2]), "c": {}}, "d": ()}
    assert dict(flatten(nested)) == {"a.b.0": 1, "a.b.1.0": 2, "a.c": {}, "d": []}
