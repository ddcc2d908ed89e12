"""A training step of K-Net, of Saliency Prompt and its parts, against a port of the official K-Net's losses."""

import argparse
import os
import statistics

from pipelines import cli
from pipelines.benchmarks.report import report
from stage1_proposals.common.system import choose_device


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", help="configs/models/MODEL.py of a K-Net (default: knet on a GPU, else knet_lite0)")
    parser.add_argument("--batch-size", type=cli.at_least(1), help="images (default: 12 on a GPU, else 4)")
    parser.add_argument(
        "--size",
        type=cli.at_least(32),
        nargs=2,
        metavar=("WIDTH", "HEIGHT"),
        help="of the images, in pixels (default: 1333 800 on a GPU, else 512 384)",
    )
    parser.add_argument("--instances", type=cli.at_least(1), default=20, help="of each image (default: 20)")
    parser.add_argument("--classes", type=cli.at_least(1), default=1, help="(default: 1, as in pre-training)")
    parser.add_argument("--device", help="torch device; default: the GPU when there is one")
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="float32", help="of the network")
    parser.add_argument("--repeat", type=cli.at_least(1), default=10, help="rounds; medians count (default: 10)")


def main(args: argparse.Namespace) -> None:
    device = choose_device(args.device)
    # MMDetection takes seconds to import; `--help` and mistyped options need not wait for it.
    device = choose_device(args.device)
    with cli.quiet_imports():
        from pipelines.benchmarks import machine
        from pipelines.benchmarks.training_sides import (
            PORT,
            VANILLA,
            Setting,
            disagreement,
            measure_losses,
            measure_steps,
            ratio,
        )
        from pipelines.text_table import format_table

    gpu = device == "cuda"
    setting = Setting(
        model=args.model or ("knet" if gpu else "knet_lite0"),
        classes=args.classes,
        batch_size=args.batch_size or (12 if gpu else 4),
        size=tuple(args.size or ((1333, 800) if gpu else (512, 384))),
        instances=args.instances,
        device=device,
        precision=args.precision,
    )
    print(machine.describe(device), flush=True)
    print(
        f"{setting.model}, {setting.classes} classes, batch {setting.batch_size} of {setting.size[0]} x "
        f"{setting.size[1]} with {setting.instances} masks each, {setting.precision}, {os.cpu_count()} CPU cores\n"
    )
    costs = measure_steps(setting, args.repeat)
    vanilla = costs[VANILLA]
    rows = [
        [
            name,
            f"{1000 * cost.seconds:.0f}",
            f"{cost.ratio:.3f}",
            f"{cost.memory / 2**20:,.0f}",
            f"{cost.memory / vanilla.memory:.3f}",
        ]
        for name, cost in costs.items()
    ]
    print(format_table(("step", "ms", "/ vanilla", "peak MiB", "/ vanilla"), rows, markdown=False, left=1))
    losses = measure_losses(setting, args.repeat)
    report(
        [
            ("\nplain port / vanilla, whole step", f"{costs[PORT].ratio:.2f}"),
            ("plain port / vanilla, loss side alone", f"{ratio(losses[PORT], losses[VANILLA]):.2f}"),
            ("loss side of the plain port", f"{1000 * statistics.median(losses[PORT]):.0f} ms"),
            ("loss side, ours", f"{1000 * statistics.median(losses[VANILLA]):.0f} ms"),
            ("largest relative difference of a loss", f"{disagreement(setting):.1e}"),
        ]
    )
