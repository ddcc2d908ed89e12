"""Stage 1 against its bound and against the plain implementation, every side in a process of its own."""

import json
import multiprocessing
import resource
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pycocotools import mask as coco_mask

from pipelines.benchmarks.plain_proposals import plain_proposals
from stage1_proposals.allocator import keep_freed_memory
from stage1_proposals.backbones import build_backbone
from stage1_proposals.builder import build_extractor
from stage1_proposals.images import batch_by_size, input_size, load_photos
from stage1_proposals.job import Job
from stage1_proposals.photo_list import PhotoList, image_ids
from stage1_proposals.photos import read_photo
from stage1_proposals.runner import run
from stage1_proposals.shards import ShardReader, ShardSet


@dataclass(frozen=True)
class Side:
    """One side's photos per second, and how it was run."""

    name: str
    photos_per_second: float
    note: str = ""


def in_process(function: Callable[..., Any], *args: Any) -> Any:
    """Call a function in a fresh process and give its result: no side inherits another's threads or memory."""
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_send, args=(sender, function, args))
    process.start()
    sender.close()
    try:
        return receiver.recv()
    finally:
        process.join()


def _send(sender: Any, function: Callable[..., Any], args: tuple[Any, ...]) -> None:
    sender.send(function(*args))


def repeated(photos: PhotoList, count: int, folder: Path) -> PhotoList:
    """As many photos as asked for: links to the given ones, over and over."""
    folder.mkdir(parents=True)
    names = []
    for index, name in enumerate(islice(cycle(photos.names), count)):
        names.append(f"{index:07d}{Path(name).suffix}")
        (folder / names[-1]).symlink_to(photos.root / name)
    return PhotoList(folder, tuple(names), image_ids(names))


def measure_plain(job: Job, out: Path) -> float:
    """Photos per second of the yardstick, with the threads that PyTorch takes by itself."""
    extractor = build_backbone(job.recipe.backbone, job.recipe.weights)
    paths = [job.photos.root / name for name in job.photos.names]
    recipe = job.recipe
    sizes = []
    for path in paths:
        height, width = read_photo(path).shape[:2]
        sizes.append(input_size(height, width, recipe.short_side, recipe.long_side, extractor.spec.stride))
    plain_proposals(paths[:1], sizes[:1], extractor.trunk, extractor.mean, extractor.std, out)  # warm
    start = time.perf_counter()
    plain_proposals(paths, sizes, extractor.trunk, extractor.mean, extractor.std, out)
    return len(paths) / (time.perf_counter() - start)


def measure_forward(job: Job, threads: int, start_together: Any = None) -> float:
    """Photos per second of the optimised backbone alone, on batches that are ready in memory."""
    torch.set_num_threads(threads)
    keep_freed_memory()
    recipe = job.recipe
    extractor = build_extractor(recipe)
    photos = load_photos(
        [job.photos.root / name for name in job.photos.names],
        recipe.short_side, recipe.long_side, extractor.spec.stride, threads=2, ahead=16,
    )  # fmt: skip
    batches = [
        torch.from_numpy(np.stack([photo.pixels for photo in batch])).to(recipe.device).permute(0, 3, 1, 2)
        for batch in batch_by_size(photos, recipe.batch_size)
    ]
    extractor(batches[0])
    synchronise(recipe.device)
    if start_together is not None:
        start_together.wait()
    start = time.perf_counter()
    for batch in batches:
        extractor(batch)
    synchronise(recipe.device)
    return len(job.photos) / (time.perf_counter() - start)


def synchronise(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def measure_forward_in_processes(job: Job, processes: int) -> float:
    """The same by several processes at once, one thread each: the product's own layout."""
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(processes)
    pipes = [context.Pipe(duplex=False) for _ in range(processes)]
    workers = [context.Process(target=_send, args=(sender, measure_forward, (job, 1, barrier))) for _, sender in pipes]
    for worker in workers:
        worker.start()
    rates = [receiver.recv() for receiver, _ in pipes]
    for worker in workers:
        worker.join()
    return sum(rates)


def measure_run(job: Job, shards: Path, workers: int) -> dict[str, float]:
    """A whole run.

    Returns:
        `rate`, photos per second from the first photos done to the end, shards written; `start_up`, seconds before
        that; `bytes`, of all shards; `memory`, peak bytes of this process and of its largest child.
    """
    marks: list[tuple[float, int]] = []

    def progress(count: int) -> None:
        if count:
            marks.append((time.perf_counter(), count))

    begin = time.perf_counter()
    run(job, shards, workers, progress)
    end = time.perf_counter()
    first, already = marks[0]
    return {
        "rate": (len(job.photos) - already) / (end - first),
        "start_up": first - begin,
        "seconds": end - begin,
        "bytes": sum(path.stat().st_size for path in shards.glob("*.h5")),
        "memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }


def agreement(plain: Path, shards: Path) -> float:
    """Mean best IoU: of each of the yardstick's proposals with the product's of the same photo."""
    expected: dict[int, list[dict[str, Any]]] = {}
    for result in json.loads(plain.read_text()):
        expected.setdefault(result["image_id"], []).append(result["segmentation"])
    best: list[float] = []
    image = 0
    for path in ShardSet.open(shards).shard_paths:
        reader = ShardReader(path)
        for index in range(len(reader)):
            record = reader.read(index)
            truth = expected.get(image, [])
            image += 1
            if truth and len(record):
                best += list(coco_mask.iou(record.coco_rle(), truth, [0] * len(truth)).max(axis=0))
            else:
                best += [0.0] * len(truth)
    return float(np.mean(best))
