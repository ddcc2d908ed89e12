"""Commands that leave what the real ones leave, without their work."""

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from pipelines import launch
from pipelines.experiments.scales import DEMO, Scale, demo_datasets
from stage1_proposals.shards import Manifest
from stage2_training.config.compose import finetuning_config
from stage2_training.config.overrides import Overrides
from tests import tiny_knet
from tests.shard_sets import make_request

CONFIG = """
model = dict(backbone=dict(type="TimmBackbone", model_name="lite0"), rpn_head=dict(num_kernels=50))
train_cfg = dict(total_batch=8, max_epochs={epochs})
optim_wrapper = dict(optimizer=dict(type="AdamW", lr=0.0001))
train_dataloader = dict(dataset=dict(pipeline=[dict(type="LoadRGBImage"), dict(type="Resize", scale=(1333, 800))]))
"""


class EndedProcess:
    """Stands for a process that has ended."""

    def __init__(self, code: int) -> None:
        self.code = code

    def poll(self) -> int:
        return self.code

    def wait(self, timeout: float | None = None) -> int:
        return self.code

    def send_signal(self, number: int) -> None: ...

    def kill(self) -> None: ...


class Commands:
    """Stands for `launch.start`, by which `execute` and `launch.step` start commands.

    Attributes:
        seen: the words of every command, in order.
        codes: exit codes by the number of the command, other than 0; such a command leaves nothing.
        scores: of a fine-tuning or evaluation, by what is in its words; the first that fits.
    """

    def __init__(self) -> None:
        self.seen: list[list[str]] = []
        self.codes: dict[int, int] = {}
        self.scores: dict[str, dict[str, float]] = {}

    def start(
        self, title: str, words: Sequence[str], output: Path | None = None, threads: int | None = None
    ) -> EndedProcess:
        self.seen.append([*words])
        code = self.codes.get(len(self.seen), 0)
        if not code:
            self.leave(words)
        return EndedProcess(code)

    def leave(self, words: Sequence[str]) -> None:
        """Write the scores and the config of a run."""
        options = {option: value for option, value in pairwise(words) if option.startswith("--")}
        names = {"data": "--data-root", "proposals": "--shards", "evaluate": "--out", "draw": "--out"}
        path = Path(options.get(names.get(words[0], "--work-dir"), os.devnull))
        if words[0] in ("pretrain", "finetune"):
            path.mkdir(parents=True)
            (path / "config.py").write_text(CONFIG.format(epochs=options.get("--epochs")))
            path /= "finished.json"
        elif words[0] == "data":
            path /= "complete.json"
        elif words[0] == "proposals":
            path.mkdir(parents=True, exist_ok=True)
            Manifest(make_request(shard_count=0), ()).write(path)
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        line = " ".join(words)
        path.write_text(json.dumps(next((scores for part, scores in self.scores.items() if part in line), {})))


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch) -> Commands:
    made = Commands()
    monkeypatch.setattr(launch, "start", made.start)
    monkeypatch.setattr(launch, "POLL", 0)
    return made


@pytest.fixture
def tiny() -> Scale:
    """Demo scale with next to nothing to do."""
    return replace(DEMO, datasets=demo_datasets(4, 2, 2), pretrain_epochs=1, finetune_epochs=1)


@pytest.fixture
def run_dir(tmp_path: Path, write_labels: Callable) -> Path:
    """A fine-tuning run of a tiny K-Net on four images, that has done no step."""
    small = (*tiny_knet.MODEL, *tiny_knet.TEST_IMAGES)
    overrides = Overrides(data_root=str(write_labels()), workers=0, cfg_options=small)
    config = finetuning_config("knet_lite0", "demo", overrides=overrides)
    return tiny_knet.untrained_run(tmp_path / "run", config)
