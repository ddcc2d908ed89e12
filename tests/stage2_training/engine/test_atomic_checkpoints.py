"""A run that is stopped while it writes a checkpoint loses that one at most."""

import os
import signal
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.fileio import LocalBackend
from mmengine.model import BaseModel
from mmengine.runner import Runner, find_latest_checkpoint

import stage2_training.data
import stage2_training.engine.checkpoints
import stage2_training.engine.loop  # noqa: F401 (register what the config names)
from stage1_proposals.common.checkpoints import read_checkpoint, read_tensors
from stage2_training.runs.work_dir import CONFIG_VERSION, WorkDir


class Model(BaseModel):
    def __init__(self) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(1, 1)

    def forward(self, inputs: torch.Tensor, mode: str) -> dict[str, torch.Tensor]:
        return {"loss": self.linear(inputs).square().mean()}


def train(directory: Path, keep: int, interval: int = 1) -> None:
    """Four steps, with a checkpoint every `interval` steps."""
    Runner(
        Model(),
        str(directory),
        train_dataloader={
            "dataset": [{"inputs": torch.ones(1)}] * 4,
            "batch_size": 1,
            "num_workers": 0,
            "collate_fn": {"type": "default_collate"},
            "sampler": {"type": "ResumableSampler", "shuffle": True},
        },
        train_cfg={"type": "ResumableEpochLoop", "max_epochs": 1},
        optim_wrapper={"optimizer": {"type": "SGD", "lr": 0.001}},
        default_hooks={"checkpoint": {"type": "AtomicCheckpointHook", "interval": interval, "max_keep_ckpts": keep}},
        custom_hooks=[{"type": "PlainCheckpointHook"}],
        randomness={"seed": 0},
        resume=WorkDir(directory).latest_checkpoint() is not None,
        log_level="ERROR",
        default_scope="mmdet",
        experiment_name=f"{directory.name}_{keep}_{interval}_{os.getpid()}_{len(list(directory.glob('*')))}",
    ).train()


def names(directory: Path) -> set[str]:
    return {path.name for path in directory.iterdir() if path.is_file() and path.suffix != ".py"}


@pytest.mark.parametrize(
    ("interval", "keep", "steps"),
    [(1, -1, [1, 2, 3, 4]), (2, -1, [2, 4]), (3, -1, [3, 4]), (9, 1, [4]), (1, 3, [2, 3, 4])],
)
def test_saves_every_interval_and_at_the_end_and_keeps_the_newest(tmp_path, interval, keep, steps):
    train(tmp_path, keep, interval)
    assert names(tmp_path) == {"last_checkpoint", *(f"iter_{step}.pth" for step in steps)}
    assert find_latest_checkpoint(str(tmp_path)) == str(tmp_path / "iter_4.pth")  # where MMDetection's tools resume
    assert read_checkpoint(tmp_path / "iter_4.pth")["meta"]["iter"] == 4


def test_a_checkpoint_of_a_later_step_does_not_push_out_a_new_one(tmp_path):
    """Such a one is left when a run is begun anew by hand. Files that are not of a step are nobody's business."""
    (tmp_path / "iter_100.pth").touch()
    (tmp_path / "iter_best.pth").touch()
    train(tmp_path, keep=1)
    assert names(tmp_path) == {"last_checkpoint", "iter_4.pth", "iter_100.pth", "iter_best.pth"}


@pytest.mark.parametrize("keep", [1, 2])
def test_stopped_in_the_middle_of_a_write_the_checkpoint_before_is_the_last(tmp_path, monkeypatch, keep):
    put = LocalBackend.put

    def stop(backend, data, path):
        if "iter_3" not in str(path):
            return put(backend, data, path)
        put(backend, data[:100], path)
        raise KeyboardInterrupt

    with monkeypatch.context() as interrupted:
        interrupted.setattr(LocalBackend, "put", stop)
        with pytest.raises(KeyboardInterrupt):
            train(tmp_path, keep)
    assert names(tmp_path) == {"last_checkpoint", *(f"iter_{step}.pth" for step in range(3 - keep, 3))}
    assert WorkDir(tmp_path).latest_checkpoint() == tmp_path / "iter_2.pth"
    assert read_tensors(tmp_path / "iter_2.pth")
    train(tmp_path, keep)
    assert names(tmp_path) == {"last_checkpoint", *(f"iter_{step}.pth" for step in range(5 - keep, 5))}


def test_killed_in_the_middle_of_a_write_the_leftover_goes_with_the_next_start(tmp_path, monkeypatch):
    put = LocalBackend.put

    def kill(backend, data, path):
        put(backend, data[:100] if "iter_3" in str(path) else data, path)
        if "iter_3" in str(path):
            os.kill(os.getpid(), signal.SIGKILL)

    pid = os.fork()
    if pid == 0:
        monkeypatch.setattr(LocalBackend, "put", kill)
        try:
            train(tmp_path, 2)
        finally:
            os._exit(1)
    assert os.waitpid(pid, 0)[1] == signal.SIGKILL
    (leftover,) = tmp_path.glob(".iter_3.pth.*.tmp")
    work = WorkDir(tmp_path)
    assert work.latest_checkpoint() == tmp_path / "iter_2.pth"
    (tmp_path / "config.py").write_text(f"model = dict(type='Model')\nconfig_version = {CONFIG_VERSION}\n")
    work.create_or_verify(Config({"model": {"type": "Model"}}))
    assert not leftover.exists()
    assert work.latest_checkpoint() == tmp_path / "iter_2.pth"
    train(tmp_path, 2)
    assert work.latest_checkpoint() == tmp_path / "iter_4.pth"
