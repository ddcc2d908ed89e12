"""Running a job: each shard is one idempotent task, done by Ray actors or, with `workers=0`, in this process.

What a shard holds depends on the request alone. So a run that was killed and started again, with any number of
workers, ends with the same shards as a run that was never interrupted.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path

from stage1_proposals.backbones.weights import read_backbone_weights
from stage1_proposals.jobs.builder import ShardBuilder, build_on_node
from stage1_proposals.jobs.request import Job, check_same_request
from stage1_proposals.jobs.store import open_store, store_manifest, stored_manifest
from stage1_proposals.jobs.tasks import run_tasks
from stage1_proposals.shards import Manifest, ShardEntry


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
    make_builder: Callable[[], ShardBuilder] = partial(build_on_node, job.recipe, request, store, retry_failed)
    # Weights that do not fit are refused before anything is written and, of many workers, once.
    if workers == 0:
        builder = ShardBuilder(job.recipe, request, store, retry_failed)
        make_builder = lambda: builder  # noqa: E731
    else:
        read_backbone_weights(job.recipe.backbone, job.recipe.weights)
    with store.exclusive_lock():
        check_same_request(store, request)
        if retry_failed or stored_manifest(store) is None:
            store_manifest(store, Manifest(request, None))
        store.remove_leftovers()
        tasks = [job.task(index) for index in range(job.shard_count)]
        entries = run_tasks(make_builder, tasks, workers, job.recipe.device == "cuda", progress)
        check_same_request(store, request)  # a store without a lock may have been taken by another run meanwhile
        store_manifest(store, Manifest(request, tuple(entries)))
    return entries
