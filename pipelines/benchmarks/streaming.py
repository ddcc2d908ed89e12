"""Reading samples from shards, a sample's way to the model, and the start on a large set, against plain ways."""

import argparse
import tempfile
from pathlib import Path
from typing import Any

from pipelines import cli
from pipelines.benchmarks.processes import in_process
from pipelines.benchmarks.report import report

FEATURE_DIMS = (2048, 1280)
SCHEDULES = {"pretrain": "1333 x 800", "pretrain_demo": "256 x 256"}
MIB = 2**20


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--images", type=cli.at_least(5), default=60, help="to read (default: 60)")
    parser.add_argument("--images", type=cli.at_least(1), default=123_403, help="to start on (default: 123,403)")
    parser.add_argument("--masks", type=cli.at_least(1), default=10, help="of each, in the COCO JSON (default: 10)")
    parser.add_argument(
        "--coco-share",
        type=cli.at_least(1),
        default=20,
        metavar="N",
        help="start MMDetection's dataset on one N-th of the images, and multiply; all of them, as of 10 masks each, "
        "take about 15 GB of memory (default: 20)",
    )
    parser.add_argument("--repeat", type=cli.at_least(1), default=3, help="rounds over the images (default: 3)")


def main(args: argparse.Namespace) -> None:
    with cli.quiet_imports():
        from pipelines.benchmarks import machine, synthetic_shards

    print(machine.describe("cpu"), "\n", flush=True)
    with tempfile.TemporaryDirectory(prefix="saliency-prompt-bench-") as folder:
        scratch = Path(folder)
        for feature_dim in FEATURE_DIMS:
            synthetic_shards.make_shards(scratch / f"{feature_dim}", args.images, feature_dim)
        print("One sample from a shard, 20 proposals of 640 x 480, on one core: median, and 95 % below\n")
        for feature_dim in FEATURE_DIMS:
            report(reading(scratch / f"{feature_dim}", feature_dim, args.repeat))
        for schedule, size in SCHEDULES.items():
            print(f"A sample's way to the model at {size}, ms on one core, masks kept as\n")
            print(pipeline(scratch / f"{FEATURE_DIMS[0]}", schedule, args.repeat), "\n", flush=True)
        print("Start, in a process that has imported PyTorch and MMDetection\n")
        report(start(scratch, args.images, args.masks, args.coco_share))


def reading(directory: Path, feature_dim: int, rounds: int) -> list[tuple[str, str]]:
    """Lines on `measure_reading`."""
    times = in_process(_call, "measure_reading", directory, rounds)
    names = {
        "row": f"D = {feature_dim}: its rows",
        "masks": "its masks, decoded at full size",
        "sample": "both",
        "plain": "h5py and pycocotools",
    }
    lines = [(names[name], f"{1000 * t.median:.2f} ms, {1000 * t.slow:.2f} ms") for name, t in times.items()]
    return [*lines, ("h5py and pycocotools / both", f"{times['plain'].median / times['sample'].median:.1f}")]


def pipeline(directory: Path, schedule: str, rounds: int) -> str:
    """The table of `measure_pipeline`, with bitmaps and with run lengths."""
    from pipelines.text_table import format_table

    plain, ours = (
        in_process(_call, "measure_pipeline", directory, schedule, bitmaps, rounds) for bitmaps in (True, False)
    )
    rows = [[name, f"{1000 * plain[name]:.2f}", f"{1000 * ours[name]:.2f}"] for name in plain]
    rows.append(["together", *(f"{1000 * sum(each.values()):.2f}" for each in (plain, ours))])
    return format_table(("step", "bitmaps", "run lengths"), rows, markdown=False, left=1)


def start(scratch: Path, images: int, masks: int, share: int) -> list[tuple[str, str]]:
    """Lines on the start of a training process on a manifest and on COCO JSON."""
    from pipelines.benchmarks import synthetic_shards

    few = max(1, images // share)
    ours = in_process(_call, "start_on_shards", synthetic_shards.make_manifest(scratch / "manifest", images))
    coco = in_process(_call, "start_on_coco", synthetic_shards.make_coco(scratch / "coco.json", few, masks))
    times = images / few
    return [
        (f"manifest of {images:,} images", _cost(ours, 1)),
        (f"CocoDataset, {few:,} images with {masks} masks each", _cost(coco, 1)),
        (f"CocoDataset, times {times:.1f}", _cost(coco, times)),
        ("CocoDataset / ours, seconds", f"{times * coco.seconds / ours.seconds:,.0f}"),
        ("CocoDataset / ours, or 1 MiB, at the worst", f"{times * coco.peak / max(ours.peak, MIB):,.0f}"),
    ]


def _cost(cost: Any, times: float) -> str:
    held, peak = times * cost.held / MIB, times * cost.peak / MIB
    return f"{times * cost.seconds:.2f} s, {held:,.0f} MiB held, {peak:,.0f} MiB at the worst"


def _call(name: str, *args: Any) -> Any:
    """A measurement by its name: what it needs is imported in its own process."""
    with cli.quiet_imports():
        from pipelines.benchmarks import streaming_sides
    return getattr(streaming_sides, name)(*args)
