"""Interrupted at any iteration and resumed, a run sees the batches of an undisturbed one, once each."""

from itertools import chain
from pathlib import Path

import pytest
import torch
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.runner import Runner
from torch.utils.data import Dataset

import stage2_training.data
import stage2_training.engine.checkpoints
import stage2_training.engine.loop  # noqa: F401 (register what the config names)

SAMPLES, BATCH, EPOCHS = 10, 3, 3  # the last batch of an epoch is a short one


class Numbers(Dataset):
    """0 .. SAMPLES - 1."""

    def __len__(self) -> int:
        return SAMPLES

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        return {"inputs": torch.tensor([float(index)])}


class Recorder(BaseModel):
    """Writes down what it trains on, and when it is evaluated."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(1, 1)
        self.seen: list[list[int] | str] = []

    def forward(self, inputs: torch.Tensor, mode: str) -> dict[str, torch.Tensor] | list[None]:
        if mode == "loss":
            self.seen.append([int(value) for value in inputs])
            return {"loss": self.linear(inputs).square().mean()}
        self.seen.append("val")
        return [None]


class StopAt(Hook):
    """Ends training, as an interruption would, before an iteration."""

    def __init__(self, iteration: int) -> None:
        self.iteration = iteration

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: object = None) -> None:
        if runner.iter == self.iteration:
            raise KeyboardInterrupt

    def before_val(self, runner: Runner) -> None:
        if runner.iter == self.iteration:
            raise KeyboardInterrupt


def train(directory: Path, stop_at: int | None = None) -> list[list[int] | str]:
    """What the model saw, until the end or the interruption; resumes what the directory holds."""
    model = Recorder()
    loader = {"dataset": Numbers(), "batch_size": BATCH, "num_workers": 0, "collate_fn": {"type": "default_collate"}}
    runner = Runner(
        model,
        str(directory),
        train_dataloader={**loader, "sampler": {"type": "ResumableSampler", "shuffle": True}},
        val_dataloader={**loader, "batch_size": SAMPLES, "sampler": {"type": "DefaultSampler", "shuffle": False}},
        val_evaluator={"type": "Nothing"},
        train_cfg={"type": "ResumableEpochLoop", "max_epochs": EPOCHS, "val_interval": 2},
        val_cfg={},
        optim_wrapper={"optimizer": {"type": "SGD", "lr": 0.001}},
        default_hooks={"checkpoint": {"type": "CheckpointHook", "by_epoch": False, "interval": 1}},
        custom_hooks=[{"type": "PlainCheckpointHook"}],
        randomness={"seed": 0},
        resume=True,
        log_level="ERROR",
        default_scope="mmdet",  # as in every test: it stays the process's
        experiment_name=f"{directory.name}_{stop_at}",
    )
    if stop_at is not None:
        runner.register_hook(StopAt(stop_at))
    try:
        runner.train()
    except KeyboardInterrupt:
        assert stop_at is not None
    return model.seen


@pytest.fixture(scope="module", autouse=True)
def metric() -> None:
    """A metric of nothing, under MMEngine's registry."""
    from mmengine.evaluator import BaseMetric
    from mmengine.registry import METRICS

    class Nothing(BaseMetric):
        def process(self, data_batch: object, data_samples: object) -> None:
            self.results.append(0)

        def compute_metrics(self, results: list) -> dict[str, float]:
            return {"zero": 0.0}

    METRICS.register_module(module=Nothing, force=True)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> list[list[int] | str]:
    return train(tmp_path_factory.mktemp("undisturbed"))


def test_epochs_are_permutations_and_evaluated_in_turn(undisturbed):
    steps = 4  # batches of 3, 3, 3 and 1
    assert [index for index, seen in enumerate(undisturbed) if seen == "val"] == [2 * steps, 3 * steps + 1]
    batches = [seen for seen in undisturbed if seen != "val"]
    epochs = [[*chain(*batches[first : first + steps])] for first in range(0, EPOCHS * steps, steps)]
    assert all(sorted(epoch) == list(range(SAMPLES)) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]


@pytest.mark.parametrize("stop_at", [1, 3, 4, 6, 8, 11, 12])
def test_an_interrupted_run_sees_what_an_undisturbed_one_does(tmp_path, undisturbed, stop_at):
    """In the middle of an epoch, at its border, and in the evaluation after it (8 and 12)."""
    first = train(tmp_path, stop_at)
    assert first + train(tmp_path) == undisturbed
