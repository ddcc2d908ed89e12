"""The best weights of a run are kept beside the last, and a run that no longer improves ends."""

import json
import os
from pathlib import Path

import pytest
import torch
from mmengine.evaluator import BaseMetric
from mmengine.model import BaseModel
from mmengine.registry import METRICS
from mmengine.runner import Runner

import stage2_training.data
import stage2_training.engine.best_checkpoint
import stage2_training.engine.checkpoints
import stage2_training.engine.loop  # noqa: F401 (register what the config names)
from stage1_proposals.common.checkpoints import read_checkpoint, read_tensors
from stage1_proposals.common.errors import UserError
from stage2_training.engine.best_checkpoint import Best, describe_stop
from stage2_training.runs.work_dir import WorkDir, find_checkpoint

STEPS = 2  # of an epoch


class Counter(BaseModel):
    """Its weight is the number of steps done."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))

    def forward(self, inputs: torch.Tensor, mode: str) -> object:
        return {"loss": -self.weight} if mode == "loss" else [0]


@pytest.fixture(scope="module", autouse=True)
def metric() -> None:
    class Given(BaseMetric):
        """The scores that it is given, by the epoch of the model."""

        default_prefix = "coco"

        def __init__(self, scores: list[float], name: str) -> None:
            super().__init__()
            self.scores, self.name = scores, name

        def process(self, data_batch: object, data_samples: object) -> None:
            self.results.append(0)

        def compute_metrics(self, results: object) -> dict[str, float]:
            return {self.name: self.scores[evaluated.pop() - 1]}

    METRICS.register_module(module=Given, force=True)


evaluated: list[int] = []


def train(
    directory: Path, scores: list[float], patience: int | None = None, stop_after: int | None = None, name: str = "AP"
) -> list[int]:
    """Train an epoch per score, from where the directory stands; returns the epochs that were evaluated.

    Args:
        stop_after: epoch of which the evaluation is interrupted at its end.
    """
    seen: list[int] = []
    loader = {
        "dataset": [{"inputs": torch.ones(1)}] * STEPS,
        "batch_size": 1,
        "num_workers": 0,
        "collate_fn": {"type": "default_collate"},
    }
    runner = Runner(
        Counter(),
        str(directory),
        train_dataloader={**loader, "sampler": {"type": "ResumableSampler", "shuffle": True}},
        val_dataloader={**loader, "sampler": {"type": "DefaultSampler", "shuffle": False}},
        val_evaluator={"type": "Given", "scores": scores, "name": name},
        val_cfg={},
        train_cfg={"type": "ResumableEpochLoop", "max_epochs": len(scores)},
        optim_wrapper={"optimizer": {"type": "SGD", "lr": 1.0}},
        default_hooks={
            "checkpoint": {"type": "AtomicCheckpointHook", "interval": 3, "max_keep_ckpts": 2},
            "best": {"type": "BestCheckpointHook", "patience": patience},
        },
        custom_hooks=[{"type": "PlainCheckpointHook"}],
        randomness={"seed": 0},
        resume=WorkDir(directory).latest_checkpoint() is not None,
        log_level="ERROR",
        default_scope="mmdet",
        experiment_name=f"{directory.name}_{os.getpid()}_{len(list(directory.glob('*')))}",
    )
    run = runner.val_loop.run

    def watched() -> object:
        seen.append(runner.epoch)
        evaluated.append(runner.epoch)
        result = run()
        if runner.epoch == stop_after:
            raise KeyboardInterrupt
        return result

    runner.val_loop.run = watched
    try:
        runner.train()
    except KeyboardInterrupt:
        assert stop_after is not None
    return seen


def test_the_best_weights_are_kept_beside_the_last(tmp_path):
    assert train(tmp_path, [0.1, 0.4, 0.4, 0.3]) == [1, 2, 3, 4]
    assert WorkDir(tmp_path).best() == Best("best_4.pth", 2, "AP", 0.4, [3, 4])
    assert [path.name for path in tmp_path.glob("best_*.pth")] == ["best_4.pth"]
    work = WorkDir(tmp_path)
    assert work.require_checkpoint() == find_checkpoint(tmp_path) == tmp_path / "best_4.pth"
    assert work.require_checkpoint(last=True) == find_checkpoint(tmp_path, last=True) == tmp_path / "iter_8.pth"
    with pytest.raises(UserError, match=r"^--last: .*best_4\.pth is one checkpoint; "):
        find_checkpoint(tmp_path / "best_4.pth", last=True)
    assert work.latest_checkpoint() == tmp_path / "iter_8.pth"
    assert read_tensors(tmp_path / "best_4.pth")["weight"] == 4
    assert "optimizer" not in read_checkpoint(tmp_path / "best_4.pth")
    path = str(tmp_path / "best_4.pth")
    assert describe_stop(tmp_path, 4, 4) == {"best_checkpoint": path, "best_epoch": 2, "best_AP": 0.4}


def test_a_model_of_boxes_alone_is_judged_by_their_ap(tmp_path):
    train(tmp_path, [0.2, 0.1], name="box_AP")
    assert WorkDir(tmp_path).best() == Best("best_2.pth", 1, "box_AP", 0.2, [2])


@pytest.mark.parametrize("scores", [[0.0, 0.0], [-1.0, -1.0]])
def test_without_anything_found_the_last_is_taken(tmp_path, scores):
    assert train(tmp_path, scores, patience=1) == [1, 2]
    assert WorkDir(tmp_path).best() is None
    assert WorkDir(tmp_path).require_checkpoint() == tmp_path / "iter_4.pth"


def test_a_missing_best_checkpoint_is_the_last_one(tmp_path):
    train(tmp_path, [0.2, 0.1])
    (tmp_path / "best_2.pth").unlink()
    assert WorkDir(tmp_path).require_checkpoint() == tmp_path / "iter_4.pth"


def test_a_run_that_no_longer_improves_ends_and_leaves_its_last_state(tmp_path):
    assert train(tmp_path, [0.1, 0.5, 0.4, 0.4, 0.9], patience=2) == [1, 2, 3, 4]
    last = WorkDir(tmp_path).latest_checkpoint()
    assert last == tmp_path / "iter_8.pth"
    assert read_checkpoint(last)["meta"]["iter"] == read_tensors(last)["weight"] == 8
    assert describe_stop(tmp_path, 4, 5)["stopped"] == "after epoch 4 of 5: no better in 2 evaluations"
    # Killed before its result was written, it ends at the same place; with more patience, it goes on.
    assert train(tmp_path, [0.1, 0.5, 0.4, 0.4, 0.9], patience=2) == [4]
    assert train(tmp_path, [0.1, 0.5, 0.4, 0.4, 0.9], patience=3) == [4, 5]
    assert WorkDir(tmp_path).best() == Best("best_10.pth", 5, "AP", 0.9)


@pytest.mark.parametrize("stop_after", [2, 3])
def test_an_evaluation_that_is_repeated_counts_once(tmp_path, stop_after):
    scores = [0.1, 0.5, 0.4, 0.4, 0.4]
    train(tmp_path, scores, patience=3, stop_after=stop_after)
    assert train(tmp_path, scores, patience=3)[-1] == 5
    assert json.loads((tmp_path / "best.json").read_text())["worse"] == [3, 4, 5]
