"""The job: one shard is one idempotent task, run by Ray actors or in-process with `workers=0`.

What a shard holds depends on the request alone, so a run that was killed and run again, on any number of
workers, ends with the shards of an undisturbed one.
"""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path

from stage1_proposals.backbones import build_backbone
from stage1_proposals.builder import GO_ON, Row, ShardBuilder
from stage1_proposals.directory import sole_user, writing
from stage1_proposals.job import Job, check_same_request
from stage1_proposals.shards import read_manifest, write_manifest


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
    job: Job, directory: str | Path, workers: int | None, progress: Callable[[int], None], retry_failed: bool = False
) -> list[Row]:
    """Make the shard set, going on where an earlier run of the same request stopped.

    Args:
        directory: the shard set's; made when missing.
        workers: Ray actors, 0 for this process alone, or None for one per GPU or core of the Ray cluster.
        progress: called with 0 as work begins, then with numbers of photos done; photos of shards already there count.
        retry_failed: read the photos that failed before once more; what was made of the others stays as it is.

    Returns:
        The manifest's line of each shard.

    Raises:
        UserError: the directory holds other work, is in use or cannot be made; weights that do not fit.
    """
    directory = Path(directory).resolve()
    request = job.request()
    build_backbone(
        job.recipe.backbone, job.recipe.weights
    )  # a checkpoint that does not fit fails here, not on every worker
    with sole_user(directory):
        check_same_request(directory, request)
        with writing(directory, GO_ON):
            if retry_failed or read_manifest(directory) is None:
                write_manifest(directory, request, None)
            for ours in (".shard-*.h5.*.tmp", ".manifest.json.*.tmp"):
                for leftover in directory.glob(ours):
                    leftover.unlink(missing_ok=True)
        if workers == 0:
            rows = run_here(ShardBuilder(job.recipe, request, directory, retry_failed), job, progress)
        else:
            from stage1_proposals.ray_pool import run_on_ray

            actors = min(workers or job.shard_count, job.shard_count)
            make = partial(ShardBuilder, job.recipe, request, directory, retry_failed)
            tasks = map(job.task, range(job.shard_count))
            rows = run_on_ray(make, tasks, actors, job.recipe.device == "cuda", progress)
        with writing(directory, GO_ON):
            write_manifest(directory, request, rows)
    return rows
