"""Stage 1 against a plain implementation and against its bound, the forward pass of the backbone."""

import argparse
import os
import tempfile
from pathlib import Path

from pipelines import cli
from pipelines.benchmarks.report import report
from stage1_proposals.backbones.catalogue import CATALOGUE
from stage1_proposals.common.system import choose_device


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--images", required=True, type=Path, help="images; taken again and again where there are few")
    parser.add_argument("--backbone", default="imagenet_r50", help=f"{', '.join(CATALOGUE)}, or any model of timm's")
    parser.add_argument("--weights", type=Path, help="the backbone's checkpoint; default: random weights, by seed")
    parser.add_argument("--short-side", type=cli.at_least(1), default=480, help="pixels (default: 480)")
    parser.add_argument("--device", help="torch device; default: the GPU when there is one")
    parser.add_argument("--precision", help="of the backbone; default: as in `make proposals`")
    parser.add_argument("--workers", type=cli.at_least(0), help="Ray actors; default: as in `make proposals`")
    parser.add_argument("--images", type=cli.at_least(8), default=240, help="for the run and the forward pass")
    parser.add_argument("--plain-images", type=cli.at_least(2), default=24, help="for the plain implementation")
    parser.add_argument("--growth-images", type=cli.at_least(1), default=20, help="per shard, for 1 to 100 shards")
    parser.add_argument("--repeat", type=cli.at_least(1), default=2, help="rounds; the best of each side counts")


def main(args: argparse.Namespace) -> None:
    from pipelines.benchmarks import machine, proposals_sides
    from pipelines.proposals import choose_precision
    from stage1_proposals.generators.registry import build_generator
    from stage1_proposals.images.listing import list_images
    from stage1_proposals.jobs.request import JobSettings, Recipe

    device = choose_device(args.device)
    images = list_images(args.images)
    with tempfile.TemporaryDirectory(prefix="saliency-prompt-bench-") as scratch:
        weights = args.weights or proposals_sides.random_weights(args.backbone, Path(scratch) / "weights.pth")
        recipe = Recipe(
            generator=build_generator({}),
            backbone=args.backbone,
            weights=str(Path(weights).resolve()),
            device=device,
            precision=choose_precision(args.precision, device),
            settings=JobSettings(short_side=args.short_side, long_side=round(args.short_side * 1333 / 800)),
        )
        print(machine.describe(device), flush=True)
        print(f"{args.backbone}, shorter side {args.short_side}, {recipe.precision}, {os.cpu_count()} CPU cores\n")
        bench = proposals_sides.Bench(images, recipe, args.workers, Path(scratch))
        report(bench.speed(args.images, args.plain_images, args.repeat))
        report(bench.growth(args.growth_images))
