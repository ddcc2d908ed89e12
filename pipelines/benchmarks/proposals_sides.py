"""Stage 1 against its bound and against the plain implementation, every side in a process of its own."""

import json
import multiprocessing
import os
import resource
import time
from dataclasses import dataclass, replace
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from pycocotools import mask as coco_mask

from pipelines.benchmarks.plain_proposals import plain_proposals
from pipelines.benchmarks.processes import in_process, receive, send
from stage1_proposals.backbones.extractor import build_extractor, get_spec, speed_up
from stage1_proposals.backbones.weights import new_network
from stage1_proposals.common.system import keep_freed_memory
from stage1_proposals.images.batching import batch_by_size, input_size, load_images
from stage1_proposals.images.decode import read_image
from stage1_proposals.images.listing import ImageList, image_ids
from stage1_proposals.jobs.request import Job, JobSettings, Recipe
from stage1_proposals.jobs.run import run
from stage1_proposals.shards import ShardSet

# libgomp's own, where `pipelines` shortens it for the product.
PLAIN_ENVIRONMENT = {"GOMP_SPINCOUNT": "300000"}


def repeated(images: ImageList, count: int, folder: Path) -> ImageList:
    """As many images as asked for: links to the given ones, over and over, their ids counted from 0."""
    folder.mkdir(parents=True, exist_ok=True)
    names = []
    for index, name in enumerate(islice(cycle(images.names), count)):
        names.append(f"{index:07d}{Path(name).suffix}")
        if not (folder / names[-1]).is_symlink():
            (folder / names[-1]).symlink_to(images.root / name)
    return ImageList(folder, tuple(names), image_ids(names))


def measure_plain(job: Job, out: Path) -> float:
    """Images per second of the yardstick on the same device, with the threads that PyTorch takes by itself."""
    extractor = build_extractor(job.recipe.backbone, job.recipe.weights).to(job.recipe.device)
    paths = [job.images.root / name for name in job.images.names]
    settings = job.recipe.settings
    sizes = []
    for path in paths:
        height, width = read_image(path).shape[:2]
        sizes.append(input_size(height, width, settings.short_side, settings.long_side, extractor.spec.stride))
    plain_proposals(paths[:1], sizes[:1], extractor.trunk, extractor.mean, extractor.std, out)  # warm
    start = time.perf_counter()
    plain_proposals(paths, sizes, extractor.trunk, extractor.mean, extractor.std, out)
    return len(paths) / (time.perf_counter() - start)


def measure_forward(job: Job, threads: int, start_together: Any = None) -> float:
    """Images per second of the optimised backbone alone, on batches that are ready in memory."""
    torch.set_num_threads(threads)
    keep_freed_memory()
    recipe = job.recipe
    extractor = speed_up(build_extractor(recipe.backbone, recipe.weights), recipe.precision).to(recipe.device)
    images = load_images(
        [job.images.root / name for name in job.images.names],
        settings.short_side, settings.long_side, extractor.spec.stride, threads=2, ahead=16,
    )  # fmt: skip
    batches = [
        torch.from_numpy(np.stack([image.pixels for image in batch])).to(recipe.device).permute(0, 3, 1, 2)
        for batch in batch_by_size(images, settings.batch_size)
    ]
    extractor(batches[0])
    synchronise(recipe.device)
    if start_together is not None:
        start_together.wait()
    start = time.perf_counter()
    for batch in batches:
        extractor(batch)
    synchronise(recipe.device)
    return len(job.images) / (time.perf_counter() - start)


def synchronise(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def measure_forward_in_processes(job: Job, processes: int) -> float:
    """The same by several processes at once, one thread each: the product's own layout."""
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(processes)
    pipes = [context.Pipe(duplex=False) for _ in range(processes)]
    workers = [context.Process(target=send, args=(sender, measure_forward, (job, 1, barrier))) for _, sender in pipes]
    for worker in workers:
        worker.start()
    return sum(receive(receiver, worker) for (receiver, _), worker in zip(pipes, workers, strict=True))


def measure_run(job: Job, shards: Path, workers: int | None) -> dict[str, float]:
    """A whole run.

    Returns:
        `rate`, images per second from the moment the first worker begins to the end, shards written; `start_up`,
        seconds before that; `memory`, peak bytes of this process.
    """
    begun: list[float] = []
    begin = time.perf_counter()
    run(job, shards, workers, lambda count: begun.append(time.perf_counter()) if not count else None)
    end = time.perf_counter()
    return {
        "rate": len(job.images) / (end - begun[0]),
        "start_up": begun[0] - begin,
        "memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }


def agreement(plain: Path, shards: Path) -> float:
    """Mean best IoU: of each of the yardstick's proposals with the product's of the same image."""
    expected: dict[int, list[dict[str, Any]]] = {}
    for result in json.loads(plain.read_text()):
        expected.setdefault(result["image_id"], []).append(result["segmentation"])
    best: list[float] = []
    for record in ShardSet.open(shards).records():
        truth = expected.pop(record.image_id, [])
        ious = coco_mask.iou(record.coco_rle(), truth, [0] * len(truth)) if truth and len(record) else None
        best += [0.0] * len(truth) if ious is None else ious.max(axis=0).tolist()
    return float(np.mean(best + [0.0] * sum(map(len, expected.values()))))


def random_weights(backbone: str, path: Path) -> Path:
    """A checkpoint of random weights for a backbone whose own are not at hand; speed does not depend on them.

    Batch norms get the statistics of noise, without which the features of a deep random network are all alike.
    """
    torch.manual_seed(0)
    network = new_network(get_spec(backbone).architecture)
    network.train()
    with torch.no_grad():
        for _ in range(10):
            network(F.interpolate(torch.randn(4, 3, 8, 8), 128, mode="bicubic"))
    torch.save(network.state_dict(), path)
    return path


@dataclass(frozen=True)
class Bench:
    """Stage 1 on some images.

    Attributes:
        images: repeated where more are needed.
        recipe: the product's; the yardstick computes the same in float32.
        workers: Ray actors, as in the product.
        scratch: folder for shards and links to images.
    """

    images: ImageList
    recipe: Recipe
    workers: int | None
    scratch: Path

    def speed(self, count: int, plain_count: int, rounds: int) -> list[tuple[str, str]]:
        """Images per second of the product, the yardstick and the forward pass, in turn; the best of each counts."""
        job = self._job(count, max(8, count // 16))
        few = self._job(plain_count, plain_count)
        processes = self.workers or len(os.sched_getaffinity(0))
        plain, forward, whole, start_up = [], [], [], []
        for round_ in range(rounds):
            plain.append(in_process(measure_plain, few, self.scratch / "plain.json", environment=PLAIN_ENVIRONMENT))
            forward.append(in_process(measure_forward, job, processes))
            if self.recipe.device == "cpu":
                forward.append(measure_forward_in_processes(job, processes))
            result = in_process(measure_run, job, self.scratch / f"run-{round_}", self.workers)
            whole.append(result["rate"])
            start_up.append(result["start_up"])
        in_process(measure_run, few, self.scratch / "few", 0)
        return [
            ("plain implementation", f"{max(plain):.2f} images/s ({spread(plain)})"),
            ("optimised backbone's forward alone", f"{max(forward):.2f} images/s ({spread(forward)})"),
            ("end to end", f"{max(whole):.2f} images/s ({spread(whole)}) after {min(start_up):.1f} s of start-up"),
            ("end to end / plain implementation", f"{max(whole) / max(plain):.2f}"),
            ("forward alone / plain implementation", f"{max(forward) / max(plain):.2f}, the most that can be"),
            ("end to end / forward alone", f"{max(whole) / max(forward):.2f}"),
            (
                "mean best IoU with the plain one's proposals",
                f"{agreement(self.scratch / 'plain.json', self.scratch / 'few'):.4f}",
            ),
        ]

    def growth(self, per_shard: int) -> list[tuple[str, str]]:
        """Seconds, bytes and memory from 1 shard to 100; on small inputs, so that what is not the backbone shows."""
        small = replace(self, recipe=replace(self.recipe, settings=JobSettings(short_side=64, long_side=128)))
        jobs = [small._job(shards * per_shard, per_shard) for shards in (1, 10, 100)]
        return [(f"{job.shard_count} shards of {per_shard} images", self._costs(job)) for job in jobs]

    def _costs(self, job: Job) -> str:
        directory = self.scratch / f"growth-{len(job.images)}-{job.shard_count}"
        result = in_process(measure_run, job, directory, 0)
        written = sum(path.stat().st_size for path in directory.iterdir())
        return (
            f"{1000 / result['rate']:.1f} s and {1000 * written / len(job.images) / 2**20:.1f} MiB per 1,000 images, "
            f"peak memory {result['memory'] / 2**20:.0f} MiB"
        )

    def _job(self, count: int, per_shard: int) -> Job:
        folder = self.scratch / f"images-{count}"
        images = repeated(self.images, count, folder)
        settings = replace(self.recipe.settings, images_per_shard=per_shard)
        return Job(images, replace(self.recipe, settings=settings))


def spread(rates: list[float]) -> str:
    return ", ".join(f"{rate:.2f}" for rate in rates)
