"""The whole job at a size for two CPU cores, each step one of the documented commands.

Images -> shards -> pre-training with Saliency Prompt -> fine-tuning on CTW1500-format labels, from ImageNet weights
and from the pre-trained model with the same budget and seed -> mask AP of both.
"""

import json
import time
from pathlib import Path
from typing import Any

import click

from pipelines import options
from pipelines.console import format_table
from pipelines.launch import step, steps_at_once
from stage1_proposals.common.files import writing

MODEL = "knet_lite0"
SIZE = ("--image-size", "192")  # as in docs/results.md
INITS = ("imagenet", "sp")
DATA = Path("data/demo")


@click.command(cls=options.Command)
@click.option("--work-dir", type=options.PATH, default="work_dirs/demo", help="Where everything goes.")
@options.seed_option("Seed of training.")
@options.image_counts_option
@click.option("--pretrain-epochs", type=options.POSITIVE, help="Default: the schedule's.")
@click.option("--finetune-epochs", type=options.POSITIVE, help="Default: the dataset's.")
def command(
    work_dir: Path,
    seed: int,
    count: tuple[int, int, int] | None,
    pretrain_epochs: int | None,
    finetune_epochs: int | None,
) -> None:
    """Run the whole job at a size for two CPU cores: about 10 minutes; run again, it resumes."""
    start = time.monotonic()
    shards, pretrained = work_dir / "shards", work_dir / "pretrain"
    step("Demo data", "data", "--dataset", "demo", *(("--count", *count) if count else ()))
    step(
        "Stage 1: proposals",
        "proposals",
        *("--images", DATA / "unlabeled", "--shards", shards),
        *("--short-side", "384", "--images-per-shard", "64"),
    )
    step("Inspection", "inspect", "--shards", shards, "--out", work_dir / "contact_sheet.png")
    step(
        "Stage 2: pre-training with Saliency Prompt",
        "pretrain",
        *("--model", MODEL, "--schedule", "pretrain_demo", *SIZE, "--shards", shards),
        *("--work-dir", pretrained, "--seed", seed),
        *(("--epochs", pretrain_epochs) if pretrain_epochs else ()),
    )
    runs = {init: work_dir / f"finetune-{init}" for init in INITS}
    fine_tunings: dict[str, list[object]] = {}
    for init, run in runs.items():
        fine_tunings[f"Stage 2: fine-tuning from {init}"] = [
            "finetune",
            *("--model", MODEL, "--dataset", "demo", "--schedule", "finetune_demo", *SIZE, "--init", init),
            *("--work-dir", run, "--seed", seed),
            *(("--checkpoint", read_result(pretrained)["checkpoint"]) if init == "sp" else ()),
            *(("--epochs", finetune_epochs) if finetune_epochs else ()),
        ]
    # At once, because starting and evaluating keep one core busy only.
    steps_at_once(fine_tunings, work_dir / "output")
    scores = {init: read_result(run) for init, run in runs.items()}
    print_comparison(work_dir, scores)
    print(f"Shards, contact sheet, learning curves, configs, logs and checkpoints: {work_dir}")
    print(f"{(time.monotonic() - start) / 60:.1f} minutes")


def read_result(run: Path) -> dict[str, Any]:
    """What a finished run left: its scores, the path of its checkpoint."""
    return json.loads((run / "finished.json").read_text())


def print_comparison(work_dir: Path, scores: dict[str, dict[str, Any]]) -> None:
    """Print and write the table of scores by initialisation; draw the learning curves."""
    from stage2_training.evaluation.curves import plot_curves
    from stage2_training.evaluation.scores import AP_NAMES, percents, read_curve

    rows = [[init, *percents(run_scores, AP_NAMES)] for init, run_scores in scores.items()]
    table = format_table(("init", *AP_NAMES), rows, markdown=True, left=1)
    curves = {init: read_curve(work_dir / f"finetune-{init}") for init in scores}
    with writing(work_dir / "table.md"):
        plot_curves(curves, work_dir / "learning_curves.png")
        (work_dir / "table.md").write_text(table + "\n")
    print(f"\nMask AP on the demo's test images, same budget and seed, in percent:\n\n{table}\n")
