"""Reading samples from shards and starting on a large set, beside h5py and MMDetection's CocoDataset."""

import io
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import click
import numpy as np
from mmdet.datasets import CocoDataset
from mmdet.registry import DATASETS
from mmengine.registry import init_default_scope

from pipelines.options import POSITIVE, Command
from stage1_proposals.common.system import keep_freed_memory
from stage1_proposals.shards import ShardReader, ShardSet
from stage2_training.config.compose import pretraining_config
from stage2_training.config.run_settings import Overrides
from stage2_training.data import ShardSampler
from stage2_training.engine import optimizer  # noqa: F401 (registers the schedule's optimizer wrapper)
from stage2_training.saliency_prompt import detectors  # noqa: F401 (registers the models)
from tests.benchmarks.measuring import in_process, print_machine, print_values
from tests.reference.plain_streaming import plain_read
from tests.reference.synthetic_shards import make_coco, make_manifest, make_shards

FEATURE_DIM = 2048


@click.command(cls=Command)
@click.option("--count", type=click.IntRange(min=5), default=60, help="Images to read.")
@click.option("--start-count", type=POSITIVE, default=123_403, help="Images of the set to start on.")
@click.option("--masks", type=POSITIVE, default=10, help="Per image, in the COCO JSON.")
@click.option(
    "--coco-share",
    type=POSITIVE,
    default=20,
    metavar="N",
    help="Start MMDetection's dataset on one N-th of the images, and multiply: all of them take about 15 GB of memory.",
)
@click.option("--repeat", type=POSITIVE, default=3, help="Rounds over the images.")
def command(**settings: Any) -> None:
    """Reading samples from shards, and the start on a large set, beside h5py and MMDetection's CocoDataset."""
    main(**settings)


def main(count: int, start_count: int, masks: int, coco_share: int, repeat: int) -> None:
    """Print the comparisons; the arguments are the options of `bench streaming`."""
    print_machine("cpu")
    with tempfile.TemporaryDirectory(prefix="saliency-prompt-bench-") as folder:
        print("A sample of 20 proposals at 640 x 480, median on one core\n")
        print_values(compare_reading(Path(folder), count, repeat))
        print("Start of a process that has imported PyTorch and MMDetection\n")
        print_values(compare_start(Path(folder), start_count, masks, coco_share))


def compare_reading(scratch: Path, images: int, rounds: int) -> dict[str, str]:
    """Time of reading a sample from a shard, with its masks decoded, ours and with h5py and pycocotools."""
    shards = make_shards(scratch / "shards", images, FEATURE_DIM)
    ours, plain = in_process(measure_reading, shards, rounds)
    return {
        "ours": f"{1000 * ours:.2f} ms",
        "h5py and pycocotools": f"{1000 * plain:.2f} ms",
        "h5py and pycocotools / ours": f"{plain / ours:.1f}",
    }


def measure_reading(directory: Path, rounds: int) -> tuple[float, float]:
    """Median seconds of a sample, ours and plain, in random order, with the file open and in the page cache."""
    keep_freed_memory()
    (path,) = ShardSet.open(directory).shard_paths
    reader = ShardReader(path)
    indices = np.random.default_rng(0).permutation(len(reader)).tolist()

    def seconds(read: Callable[[int], object]) -> float:
        times = []
        for index in indices * (rounds + 1):
            start = time.perf_counter()
            read(index)
            times.append(time.perf_counter() - start)
        return statistics.median(times[len(indices) :])

    return seconds(lambda index: reader.read(index).masks()), seconds(lambda index: plain_read(path, index))


def compare_start(scratch: Path, images: int, masks: int, share: int) -> dict[str, str]:
    """Time of the start of training on a manifest and on COCO JSON with a part of the images, multiplied."""
    few = max(1, images // share)
    ours = in_process(start_on_shards, make_manifest(scratch / "manifest", images))
    coco = images / few * in_process(start_on_coco, make_coco(scratch / "coco.json", few, masks))
    return {
        f"ours, manifest of {images:,} images": f"{ours:.2f} s",
        f"CocoDataset, {few:,} images with {masks} masks each, times {images / few:.1f}": f"{coco:.2f} s",
        "CocoDataset / ours": f"{coco / ours:,.0f}",
    }


def start_on_shards(directory: Path) -> float:
    """Seconds to compose the config, and to build the dataset and the sampler of pre-training."""
    init_default_scope("mmdet")
    start = time.perf_counter()
    given = Overrides(queries=100, image_size=1333)  # the manifest's shards are not there to count objects in
    config = pretraining_config("knet", "pretrain", ShardSet.open(directory), overrides=given)
    dataset = DATASETS.build(config.train_dataloader.dataset)
    assert 0 <= next(iter(ShardSampler(dataset, seed=0))) < len(dataset)
    return time.perf_counter() - start


def start_on_coco(path: Path) -> float:
    """Seconds to build MMDetection's dataset on the same labels."""
    start = time.perf_counter()
    with redirect_stdout(io.StringIO()):
        CocoDataset(ann_file=str(path), data_prefix={"img": ""}, metainfo={"classes": ("object",)}, pipeline=[])
    return time.perf_counter() - start
