"""The job: one shard is one idempotent task, run by Ray actors or in-process with `workers=0`.

What a shard holds depends on the request alone, so a run that was killed and run again, on any number of
workers, ends with the shards of an undisturbed one.
"""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path

from stage1_proposals.backbones.extractor import build_extractor
from stage1_proposals.jobs.builder import Row, ShardBuilder, build_on_node
from stage1_proposals.jobs.request import Job, check_same_request
from stage1_proposals.jobs.store import open_store, store_manifest, stored_manifest


def run_here(builder: ShardBuilder, job: Job, progress: Callable[[int], None]) -> list[Row]:
    """Build every shard in this process, one shard being written while the next is computed."""
    rows: list[Future[Row]] = []
    progress(0)
    with ThreadPoolExecutor(1) as writer:
        for index in range(job.shard_count):
            rows.append(writer.submit(builder.compute(job.task(index), progress)))
            if index:
                rows[index - 1].result()  # never more than one shard waits in memory
        return [row.result() for row in rows]


def run(
    job: Job, shards: str | Path, workers: int | None, progress: Callable[[int], None], retry_failed: bool = False
) -> list[Row]:
    """Make the shard set, going on where an earlier run of the same request stopped.

    Args:
        shards: directory or fsspec URL of the shard set; made when missing.
        workers: Ray actors, 0 for this process alone, or None for one per GPU or core of the Ray cluster.
        progress: called with 0 as work begins, then with numbers of images done; images of shards already there count.
        retry_failed: read the images that failed before once more; what was made of the others stays as it is.

    Returns:
        The manifest's line of each shard.

    Raises:
        UserError: the place holds other work, is in use or cannot be made or written; weights that do not fit.
    """
    store = open_store(shards)
    request = job.request()
    # A checkpoint that does not fit fails here, not on every worker.
    build_extractor(job.recipe.backbone, job.recipe.weights)
    with store.exclusive_lock():
        check_same_request(store, request)
        if retry_failed or stored_manifest(store) is None:
            store_manifest(store, request, None)
        store.remove_leftovers()
        if workers == 0:
            rows = run_here(ShardBuilder(job.recipe, request, store, retry_failed), job, progress)
        else:
            from stage1_proposals.jobs.workers import run_on_ray

            actors = min(workers or job.shard_count, job.shard_count)
            make = partial(build_on_node, job.recipe, request, store, retry_failed)
            tasks = map(job.task, range(job.shard_count))
            rows = run_on_ray(make, tasks, actors, job.recipe.device == "cuda", progress)
        check_same_request(store, request)  # where there is no lock, another run may have come between
        store_manifest(store, request, rows)
    return rows
