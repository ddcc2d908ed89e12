"""Directories of runs as training leaves them, made without training."""

import json
from pathlib import Path
from typing import Any

from stage2_training.runs.provenance import COMMANDS

SCORES = {"AP": 0.25, "AP50": 0.5, "AP75": 0.125, "AP_S": -1.0, "AP_M": 0.3, "AP_L": 0.2}


def make_run(
    path: Path,
    epochs: int = 4,
    *,
    finished: bool | None = None,
    scores: dict[str, float] | None = None,
    pretraining: bool = False,
    prompts: dict[str, Any] | None = None,
    command: list[str] | None = None,
    **settings: Any,
) -> Path:
    """Make the directory of a fine-tuning run with ten steps an epoch; returns its path.

    Args:
        epochs: done, of 4.
        finished: it has its result. Default: when all epochs are done.
        scores: of the last epoch.
        pretraining: it is a pre-training run.
        prompts: its settings of Saliency Prompt.
        command: as typed.
        settings: `init`, `lr`, `seed`, `dataset`, `classes` of its config.
    """
    path.mkdir(parents=True)
    known = {"init": "sp", "lr": 0.1, "seed": 0, "dataset": "tiny", "classes": ["text"]} | settings
    data = {"data_root": f"data/{known['dataset']}", "ann_file": "test.json", "classes": known["classes"]}
    config: dict[str, Any] = {
        "initialisation": {"kind": known["init"], "sha256": "a"},
        "model": {"type": "KNet", "backbone": {"depth": 50}} | ({"saliency_prompt": prompts} if prompts else {}),
        "optim_wrapper": {"optimizer": {"lr": known["lr"], "type": "AdamW"}},
        "randomness": {"seed": known["seed"]},
        "train_cfg": {"max_epochs": 4, "total_batch": 8},
        "val_dataloader": {"dataset": data},
    }
    if pretraining:
        config["pseudo_labels"] = {"images": 480}
    (path / "config.json").write_text(json.dumps(config))
    (path / "config.py").write_text("".join(f"{name} = {value!r}\n" for name, value in config.items()))
    kind = "pretrain" if pretraining else "finetune"
    argv = command or ["python", "-m", "pipelines", kind, "--model", "knet_lite0", "--seed", "0"]
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
    if finished if finished is not None else epochs == 4:
        result = {"epochs": 4} if pretraining else {"epoch": 4, **(scores or SCORES)}
        (path / "finished.json").write_text(json.dumps(result | {"checkpoint": "iter_40.pth"}))
    return path
