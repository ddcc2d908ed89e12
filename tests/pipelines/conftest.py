"""Commands that do nothing but leave what the real ones leave."""

import json
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from pipelines import steps
from pipelines.experiments.scales import DEMO, Scale
from stage1_proposals.shards import Manifest
from tests.shard_sets import make_request

CONFIG = """
model = dict(backbone=dict(type="TimmBackbone", model_name="lite0"), rpn_head=dict(num_kernels=50))
train_cfg = dict(total_batch=8, max_epochs={epochs})
optim_wrapper = dict(optimizer=dict(type="AdamW", lr=0.0001))
train_dataloader = dict(dataset=dict(pipeline=[dict(type="LoadRGBImage"), dict(type="Resize", scale=(1333, 800))]))
"""


class Commands:
    """Stands for `steps.step`.

    Attributes:
        seen: the words of every command, in order.
        fail: what to raise, by the number of the command, in place of leaving anything.
        scores: of a fine-tuning or evaluation, by what is in its words; the first that fits.
    """

    def __init__(self) -> None:
        self.seen: list[list[str]] = []
        self.fail: dict[int, BaseException] = {}
        self.scores: dict[str, dict[str, float]] = {}

    def step(self, title: str, module: str, *arguments: str) -> float:
        self.seen.append([module, *arguments])
        if error := self.fail.get(len(self.seen)):
            raise error
        given = options_in(arguments)
        if module == "draw":
            return 1.0
        if module == "proposals":
            Path(given["--shards"]).mkdir(parents=True)
            Manifest(make_request(), ()).write(Path(given["--shards"]))
            return 1.0
        file = {
            "prepare_data": lambda: Path(given["--root"]) / "objects/annotations.json",
            "evaluate": lambda: Path(given["--out"]),
        }.get(module, lambda: Path(given["--work-dir"]) / "finished.json")()
        file.parent.mkdir(parents=True, exist_ok=True)
        line = " ".join(arguments)
        file.write_text(json.dumps(next((scores for part, scores in self.scores.items() if part in line), {})))
        (file.parent / "config.py").write_text(CONFIG.format(epochs=given.get("--epochs")))
        return 1.0


def options_in(words: Sequence[str]) -> dict[str, str]:
    """Each option of a command and its first value."""
    return {option: value for option, value in pairwise(words) if option.startswith("--")}


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch) -> Commands:
    made = Commands()
    monkeypatch.setattr(steps, "step", made.step)
    return made


@pytest.fixture
def tiny() -> Scale:
    """Demo scale with next to nothing to do."""
    return replace(DEMO, images=(4, 2, 2), pretrain_epochs=1, finetune_epochs=1)
