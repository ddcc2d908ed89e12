"""Speed of stage 1, of the reference and of the backbone's forward pass, each in its own process."""

import json
import os
import tempfile
import time
from dataclasses import replace
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
import torch.nn.functional as F
from pycocotools import mask as coco_mask

from pipelines.options import NON_NEGATIVE, PATH, POSITIVE, Command, device_option, words_option
from stage1_proposals.analysis.timing import seconds_per_image
from stage1_proposals.backbones.extractor import build_extractor, fastest_precision, get_spec, speed_up
from stage1_proposals.backbones.weights import new_network
from stage1_proposals.common.system import choose_device, keep_freed_memory
from stage1_proposals.generators.registry import build_generator, read_settings
from stage1_proposals.images.batching import batch_by_size, input_size, load_images
from stage1_proposals.images.decode import read_image
from stage1_proposals.images.listing import ImageList, image_ids, list_images
from stage1_proposals.jobs.request import Job, JobSettings, Recipe
from stage1_proposals.jobs.run import run
from stage1_proposals.shards import ShardSet
from tests.benchmarks.measuring import (
    in_process,
    in_processes,
    print_machine,
    print_values,
    synchronize,
    wait_for_all,
)
from tests.reference.plain_proposals import plain_proposals

PLAIN_ENVIRONMENT = {"GOMP_SPINCOUNT": "300000"}  # libgomp's default, which the product shortens


@click.command(cls=Command)
@click.option("--images", default="data/demo/unlabeled", type=PATH, help="Images; used repeatedly if there are few.")
@click.option("--backbone", default="imagenet_r50", help="Of the catalogue, or any of timm's.")
@click.option("--weights", type=PATH, help="The backbone's checkpoint. Default: random weights.")
@click.option("--short-side", type=POSITIVE, default=480, help="Pixels.")
@device_option
@click.option("--precision", help="float32 or bfloat16. Default: as `proposals`.")
@click.option("--workers", type=NON_NEGATIVE, help="Ray actors. Default: as `proposals`.")
@click.option("--count", type=click.IntRange(min=8), default=240, help="Images of ours and of the forward pass.")
@click.option("--plain-count", type=click.IntRange(min=2), default=24, help="Images of the reference.")
@words_option("--generators", default=("saliency", "merging"), metavar="NAME", help="To time beside the forward pass.")
@click.option("--repeat", type=POSITIVE, default=2, help="Rounds; the best of each counts.")
def command(**settings: Any) -> None:
    """Stage 1 beside a reference implementation and beside the backbone's forward pass, which bounds it."""
    main(**settings)


def main(
    images: Path,
    backbone: str,
    weights: Path | None,
    short_side: int,
    device: str | None,
    precision: str | None,
    workers: int | None,
    count: int,
    plain_count: int,
    generators: tuple[str, ...],
    repeat: int,
) -> None:
    """Print the comparison; the arguments are the options of `bench proposals`."""
    listed = list_images(images)
    device = choose_device(device)
    print_machine(device)
    with tempfile.TemporaryDirectory(prefix="saliency-prompt-bench-") as folder:
        scratch = Path(folder)
        recipe = Recipe(  # as `proposals` by default, with images of COCO's proportions
            generator=build_generator({}),
            backbone=backbone,
            weights=str((weights or random_weights(backbone, scratch / "weights.pth")).resolve()),
            device=device,
            precision=precision or fastest_precision(device),
            settings=JobSettings(short_side=short_side, long_side=round(short_side * 1333 / 800)),
        )
        print(f"{backbone}, shorter side {short_side}, {recipe.precision}\n", flush=True)
        print_values(compare(listed, recipe, workers, scratch, count, plain_count, repeat))
        few = repeated(listed, plain_count, scratch / "timed")
        print_values({name: in_process(share, Job(few, with_generator(recipe, name))) for name in generators})


def with_generator(recipe: Recipe, name: str) -> Recipe:
    """The recipe with the generator and the settings of a config of `configs/proposals`."""
    settings = read_settings(None, name, ())
    generator = build_generator(settings.pop("generator"))
    return replace(recipe, generator=generator, settings=replace(recipe.settings, **settings))


def share(job: Job) -> str:
    """How fast a core or GPU makes proposals of images in memory, also beside the forward pass alone."""
    backbone, generator = seconds_per_image(job, len(job.images))
    seconds = backbone + generator
    return f"{1 / seconds:.2f} images/s with the backbone, {backbone / seconds:.2f} of the forward pass alone"


def with_shards_of(recipe: Recipe, images: int) -> Recipe:
    return replace(recipe, settings=replace(recipe.settings, images_per_shard=images))


def random_weights(backbone: str, path: Path) -> Path:
    """Write random weights, on which speed does not depend.

    The batch norms get statistics of noise: without them, a deep random network has the same features everywhere.
    """
    torch.manual_seed(0)
    network = new_network(get_spec(backbone).architecture)
    network.train()
    with torch.no_grad():
        for _ in range(10):
            network(F.interpolate(torch.randn(4, 3, 8, 8), 128, mode="bicubic"))
    torch.save(network.state_dict(), path)
    return path


def repeated(images: ImageList, count: int, folder: Path) -> ImageList:
    """`count` images: links to the given ones, repeatedly, with ids from 0."""
    folder.mkdir(parents=True, exist_ok=True)
    names = []
    for index, name in enumerate(islice(cycle(images.names), count)):
        names.append(f"{index:07d}{Path(name).suffix}")
        if not (folder / names[-1]).is_symlink():
            (folder / names[-1]).symlink_to(images.root / name)
    return ImageList(folder, tuple(names), image_ids(names))


def measure_plain(job: Job, out: Path) -> float:
    """Images per second of the reference, with PyTorch's own number of threads."""
    recipe, settings = job.recipe, job.recipe.settings
    extractor = build_extractor(recipe.backbone, recipe.weights).to(recipe.device)
    paths = [job.images.root / name for name in job.images.names]
    shapes = [read_image(path).shape for path in paths]
    sizes = [input_size(h, w, settings.short_side, settings.long_side, extractor.spec.input_step) for h, w, _ in shapes]
    plain_proposals(paths[:1], sizes[:1], extractor.trunk, extractor.mean, extractor.std, out)  # warm-up
    start = time.perf_counter()
    plain_proposals(paths, sizes, extractor.trunk, extractor.mean, extractor.std, out)
    return len(paths) / (time.perf_counter() - start)


def measure_forward(job: Job, threads: int) -> float:
    """Images per second of the optimised backbone alone, on batches that are ready in memory."""
    torch.set_num_threads(threads)
    keep_freed_memory()
    recipe, settings = job.recipe, job.recipe.settings
    paths = [job.images.root / name for name in job.images.names]
    extractor = build_extractor(recipe.backbone, recipe.weights)
    extractor = speed_up(extractor.to(recipe.device), recipe.precision)
    stride = extractor.spec.input_step
    images = load_images(paths, settings.short_side, settings.long_side, stride, threads=2, prefetch=16)
    batches = [
        torch.from_numpy(np.stack([image.pixels for image in batch])).to(recipe.device).permute(0, 3, 1, 2)
        for batch in batch_by_size(images, settings.batch_size)
    ]
    extractor(batches[0])
    synchronize(recipe.device)
    wait_for_all()
    start = time.perf_counter()
    for batch in batches:
        extractor(batch)
    synchronize(recipe.device)
    return len(paths) / (time.perf_counter() - start)


def measure_run(job: Job, shards: Path, workers: int | None) -> tuple[float, float]:
    """Images per second of a whole run, from the first worker's start to the last shard; seconds before that."""
    starts: list[float] = []
    start = time.perf_counter()
    run(job, shards, workers, lambda count: starts.append(time.perf_counter()) if not count else None)
    return len(job.images) / (time.perf_counter() - starts[0]), starts[0] - start


def agreement(plain: Path, shards: Path) -> float:
    """Mean over the reference's proposals of the best IoU with ours of the same image."""
    expected: dict[int, list[dict[str, Any]]] = {}
    for result in json.loads(plain.read_text()):
        expected.setdefault(result["image_id"], []).append(result["segmentation"])
    best: list[float] = []
    for record in ShardSet.open(shards).records():
        truth = expected.pop(record.image_id, [])
        ious = coco_mask.iou(record.coco_rle(), truth, [0] * len(truth)) if truth and len(record) else None
        best += [0.0] * len(truth) if ious is None else ious.max(axis=0).tolist()
    return float(np.mean(best + [0.0] * sum(map(len, expected.values()))))


def compare(
    images: ImageList, recipe: Recipe, workers: int | None, scratch: Path, count: int, plain_count: int, rounds: int
) -> dict[str, str]:
    """Images per second of all three in turn, the best of each, their ratios, and how well the proposals agree."""
    job = Job(repeated(images, count, scratch / "images"), with_shards_of(recipe, max(8, count // 16)))
    few = Job(repeated(images, plain_count, scratch / "few-images"), with_shards_of(recipe, plain_count))
    # On a CPU one process of one thread per core, as in the product; with a GPU a single process.
    processes = (workers or len(os.sched_getaffinity(0))) if recipe.device == "cpu" else 1
    plain, forward, whole, start_up = [], [], [], []
    for number in range(rounds):
        plain.append(in_process(measure_plain, few, scratch / "plain.json", environment=PLAIN_ENVIRONMENT))
        forward.append(sum(in_processes(processes, measure_forward, job, 1)))
        rate, seconds = in_process(measure_run, job, scratch / f"run-{number}", workers)
        whole.append(rate)
        start_up.append(seconds)
    in_process(measure_run, few, scratch / "few", 0)
    iou = agreement(scratch / "plain.json", scratch / "few")
    return {
        "reference": f"{max(plain):.2f} images/s",
        "optimised backbone's forward alone": f"{max(forward):.2f} images/s",
        "end to end": f"{max(whole):.2f} images/s after {min(start_up):.1f} s of start-up",
        "end to end / reference": f"{max(whole) / max(plain):.2f}",
        "forward alone / reference": f"{max(forward) / max(plain):.2f}, the upper bound",
        "end to end / forward alone": f"{max(whole) / max(forward):.2f}",
        "mean best IoU with its proposals": f"{iou:.4f}",
    }
