"""Directories of training runs as the trainer leaves them, without the training."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from stage2_training.runs.provenance import COMMANDS

SCORES = {"AP": 0.25, "AP50": 0.5, "AP75": 0.125, "AP_S": -1.0, "AP_M": 0.3, "AP_L": 0.2}
CONFIG = """\
initialisation = dict(kind={init!r}, sha256='a')
model = dict(type='KNet', head=dict(channels={channels}), {prompts})
optim_wrapper = dict(optimizer=dict(lr={lr}, type='AdamW'))
randomness = dict(seed={seed})
train_cfg = dict(max_epochs=4, total_batch=8)
train_dataloader = dict(dataset=dict(ann_file='train.json', data_root='data/{dataset}', classes={classes!r}))
val_dataloader = dict(dataset=dict(ann_file='test.json', data_root='data/{dataset}'))
work_dir = {work_dir!r}
"""


@pytest.fixture(scope="session")
def make_run() -> Callable[..., Path]:
    """(directory, epochs done of 4, ...) -> the directory of a fine-tuning run there, with ten steps an epoch.

    `finished`: it has its result; `scores`: of the last epoch; `weights`: path of the checkpoint it began with;
    `pretraining`: it is one; `prompts`: its settings of Saliency Prompt; `settings`: `init`, `channels`, `lr`, `seed`,
    `dataset`, `classes` of its config.
    """

    def make(
        path: Path,
        epochs: int = 4,
        *,
        finished: bool | None = None,
        scores: dict[str, float] | None = None,
        weights: str = "",
        pretraining: bool = False,
        prompts: dict[str, Any] | None = None,
        command: list[str] | None = None,
        **settings: Any,
    ) -> Path:
        path.mkdir(parents=True)
        known = {"init": "sp", "channels": 8, "lr": 0.1, "seed": 0, "dataset": "tiny", "classes": ("text",)}
        prompted = f"saliency_prompt={prompts}" if prompts else ""
        text = CONFIG.format(**known | settings, prompts=prompted, work_dir=f"{path.parent.name}/{path.name}")
        (path / "config.py").write_text(text + ("pseudo_labels = dict(images=480)\n" if pretraining else ""))
        (path / "transfer.json").write_text(json.dumps({"taken": ["a", "b"], "left": {"c": "why"}, "missing": []}))
        (path / "transfer.txt").write_text(f"Initial weights: {weights or 'scratch'}\npart  taken\n")
        kind = "pretrain" if pretraining else "finetune"
        argv = command or ["python", "-m", f"pipelines.{kind}", "--model", "knet_lite0", "--seed", "0"]
        start = {"argv": argv, "started": "2026-01-01T10:00:00+00:00", "software": {"torch": "1.2.3"}, "device": "cpu"}
        (path / COMMANDS).write_text(json.dumps(start) + "\n")
        (path / "initial.pth").write_bytes(bytes(2_000_000))
        rows: list[dict[str, Any]] = []
        for step in range(1, 10 * epochs + 1):
            parts = {"loss_rpn": 1.0, "s0.loss_mask": 4 / step, "s1.loss_mask": 2 / step}
            rows.append({"lr": 0.1, "loss": sum(parts.values()), **parts, "epoch": -(-step // 10), "step": step})
            if step % 10 == 0 and not pretraining:
                share = step / (10 * epochs)
                last = {name: value if value < 0 else share * value for name, value in (scores or SCORES).items()}
                rows.append({f"coco/{name}": value for name, value in last.items()} | {"step": step // 10})
        log = path / "20260101_100000"
        (log / "vis_data").mkdir(parents=True)
        (log / "vis_data" / "scalars.json").write_text("".join(json.dumps(row) + "\n" for row in rows))
        (log / f"{log.name}.log").write_text(
            "2026/01/01 10:00:00 - mmengine - INFO - begin\nmore\n2026/01/01 10:02:05 - mmengine - INFO - end\n"
        )
        if finished if finished is not None else epochs == 4:
            result = {"epochs": 4} if pretraining else {"epoch": 4, **(scores or SCORES)}
            (path / "finished.json").write_text(json.dumps(result | {"checkpoint": "iter_40.pth"}))
        return path

    return make
