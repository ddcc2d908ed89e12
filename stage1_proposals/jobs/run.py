"""Running a job: each shard is one idempotent task, done by Ray actors or, with `workers=0`, in this process.

What a shard holds depends on the request alone. So a run that was killed and started again, with any number of
workers, ends with the same shards as a run that was never interrupted.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import torch

from stage1_proposals.backbones.weights import read_backbone_weights
from stage1_proposals.jobs.builder import ShardBuilder, build_on_node
from stage1_proposals.jobs.request import Job, check_same_request
from stage1_proposals.jobs.store import open_store, store_manifest, stored_manifest
from stage1_proposals.shards import Manifest, ShardEntry


@contextmanager
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def run_in_process(builder: ShardBuilder, job: Job, progress: Callable[[int], None]) -> list[ShardEntry]:
    """Build every shard in this process with one thread of PyTorch, writing one shard while computing the next."""
    entries: list[Future[ShardEntry]] = []
    progress(0)
    with one_thread(), ThreadPoolExecutor(1) as writer:
        for index in range(job.shard_count):
            entries.append(writer.submit(builder.compute(job.task(index), progress)))
            if index:
                entries[index - 1].result()  # at most one shard waits in memory
        return [entry.result() for entry in entries]


def run(
    job: Job, shards: str | Path, workers: int | None, progress: Callable[[int], None], retry_failed: bool = False
) -> list[ShardEntry]:
    """Make the shard set, continuing where an earlier run of the same request stopped.

    Args:
        shards: directory or fsspec URL of the shard set; created when missing.
        workers: number of Ray actors, 0 for this process alone, or None for one per GPU or core of the Ray cluster.
        progress: called with 0 as work begins, then with numbers of images done, including those of shards that
            already exist.
        retry_failed: read images again that failed before; the proposals of the others stay as they are.

    Returns:
        The manifest's entry of each shard.

    Raises:
        UserError: `shards` was made with other settings, is in use or cannot be written; the weights do not fit.
    """
    store = open_store(shards)
    job = job.continuing(stored_manifest(store))
    request = job.request()
    # Weights that do not fit are refused before anything is written and, of many workers, once.
    if workers == 0:
        builder = ShardBuilder(job.recipe, request, store, retry_failed)
    else:
        read_backbone_weights(job.recipe.backbone, job.recipe.weights)
    with store.exclusive_lock():
        check_same_request(store, request)
        if retry_failed or stored_manifest(store) is None:
            store_manifest(store, Manifest(request, None))
        store.remove_leftovers()
        if workers == 0:
            entries = run_in_process(builder, job, progress)
        else:
            from stage1_proposals.jobs.workers import run_on_ray

            actors = min(workers or job.shard_count, job.shard_count)
            make_builder = partial(build_on_node, job.recipe, request, store, retry_failed)
            tasks = map(job.task, range(job.shard_count))
            entries = run_on_ray(make_builder, tasks, actors, job.recipe.device == "cuda", progress)
        check_same_request(store, request)  # a store without a lock may have been taken by another run meanwhile
        store_manifest(store, Manifest(request, tuple(entries)))
    return entries
