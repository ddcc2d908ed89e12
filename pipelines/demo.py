"""`make demo`: the whole job at a size for two CPU cores, each step one of the documented commands.

Images -> shards -> pre-training with Saliency Prompt -> fine-tuning on CTW1500-format labels, from ImageNet
weights and from the pre-trained model with the same budget and seed -> mask AP of both. Run again, it goes on.
"""

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

from pipelines import cli
from pipelines.steps import step
from pipelines.text_table import format_table
from stage1_proposals.common.files import writing
from stage2_training.evaluation.scores import AP_NAMES, percents, read_curve

MODEL = "knet_lite0"
INITS = ("imagenet", "sp")
DATA = Path("data/demo")


def build_parser() -> argparse.ArgumentParser:
    parser = cli.Parser(prog="python -m pipelines.demo", description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("work_dirs/demo"), help="where everything goes")
    parser.add_argument("--seed", type=cli.at_least(0), default=0)
    parser.add_argument(
        "--images",
        nargs=3,
        type=cli.at_least(1),
        metavar=("UNLABELED", "TRAIN", "TEST"),
        help="default: prepare_data's",
    )
    parser.add_argument("--pretrain-epochs", type=cli.at_least(1), help="default: the schedule's")
    parser.add_argument("--finetune-epochs", type=cli.at_least(1), help="default: the dataset's")
    return parser


def read_result(work_dir: Path) -> dict[str, Any]:
    """What a finished run says of itself: its scores, its checkpoint."""
    return json.loads((work_dir / "finished.json").read_text())


def main(args: argparse.Namespace) -> None:
    start = time.monotonic()
    shards, pretrained = args.out / "shards", args.out / "pretrain"
    seed = ("--seed", str(args.seed))
    step("Embedded data", "prepare_data", "--dataset", "demo", *(("--images", *args.images) if args.images else ()))
    step(
        "Stage 1: proposals",
        "proposals",
        *("--images", DATA / "unlabeled", "--shards", shards),
        *("--short-side", "384", "--images-per-shard", "64"),
    )
    step("Inspection", "inspect_shards", "--shards", shards, "--sheet", args.out / "contact_sheet.png")
    step(
        "Stage 2: pre-training with Saliency Prompt",
        "pretrain",
        *("--model", MODEL, "--schedule", "pretrain_demo", "--shards", shards, "--work-dir", pretrained, *seed),
        *(("--epochs", str(args.pretrain_epochs)) if args.pretrain_epochs else ()),
    )
    scores = {}
    for init in INITS:
        work_dir = args.out / f"finetune-{init}"
        step(
            f"Stage 2: fine-tuning from {init}",
            "finetune",
            *("--model", MODEL, "--dataset", "demo", "--schedule", "finetune_demo", "--init", init),
            *("--work-dir", work_dir, *seed),
            *(("--checkpoint", read_result(pretrained)["checkpoint"]) if init == "sp" else ()),
            *(("--epochs", str(args.finetune_epochs)) if args.finetune_epochs else ()),
        )
        scores[init] = read_result(work_dir)
    from stage2_training.evaluation.curves import plot_curves

    rows = [[init, *percents(of_init, AP_NAMES)] for init, of_init in scores.items()]
    table = format_table(("init", *AP_NAMES), rows, markdown=True, left=1)
    curves = {init: read_curve(args.out / f"finetune-{init}") for init in INITS}
    with writing(args.out / "table.md"):
        plot_curves(curves, args.out / "learning_curves.png")
        (args.out / "table.md").write_text(table + "\n")
    print(f"\nMask AP on the demo's test images, same budget and seed, in percent:\n\n{table}\n")
    print(f"Shards, contact sheet, learning curves, configs, logs and checkpoints: {args.out}")
    print(f"{(time.monotonic() - start) / 60:.1f} minutes")


if __name__ == "__main__":
    sys.exit(cli.run(main, build_parser()))
