"""Ray actors for the job: each holds one shard builder and takes one shard at a time."""

import logging
import os
from collections.abc import Callable
from typing import Any, Protocol

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")

import ray
import ray.exceptions

from stage1_proposals.errors import UserError

POLL_SECONDS = 0.5
RESTARTS = 3


class Builder(Protocol):
    def build(self, index: int) -> dict[str, Any]: ...


# progress callback -> builder, called inside the actor.
MakeBuilder = Callable[[Callable[[int], None]], Builder]


class Counter:
    """Photos done, over all actors."""

    def __init__(self) -> None:
        self.done = 0

    def add(self, count: int) -> None:
        self.done += count

    def total(self) -> int:
        return self.done


class Worker:
    """One process with a backbone."""

    def __init__(self, make: MakeBuilder) -> None:
        self.counter: Any = None
        self.reports: list[Any] = []
        self.builder = make(lambda count: self.reports.append(self.counter.add.remote(count)))

    def build(self, index: int, counter: Any) -> dict[str, Any]:
        self.counter = counter
        row = self.builder.build(index)
        ray.get(self.reports)  # counted before the shard counts as done
        self.reports.clear()
        return row


def run_on_ray(
    make: MakeBuilder, shard_count: int, actors: int, on_gpu: bool, progress: Callable[[int], None]
) -> list[dict[str, Any]]:
    """Build every shard on Ray actors; a worker that dies is restarted and its shard built again.

    Joins the cluster at `RAY_ADDRESS`, or the one `ray start` left on this machine, else starts one for this run.

    Args:
        actors: how many; fewer where the cluster has fewer cores (or GPUs), since each needs one of its own.

    Returns:
        `build`'s result for shards 0 .. shard_count - 1.

    Raises:
        UserError: raised by a builder; a worker that dies again and again; a cluster out of reach, or without a GPU
            when one is asked for. Other exceptions arrive as Ray's, with the remote traceback.
    """
    started_here = not ray.is_initialized()
    if started_here:
        try:
            ray.init(include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
        except (ConnectionError, ValueError) as error:
            where = os.environ.get("RAY_ADDRESS", "this machine")
            raise UserError(
                f"Ray at {where}: cannot be reached or started ({error}); WORKERS=0 does without"
            ) from error
    try:
        capacity = int(ray.cluster_resources().get("GPU" if on_gpu else "CPU", 0))
        if capacity < 1:
            raise UserError(f"Ray has no {'GPU' if on_gpu else 'CPU core'} to give: use WORKERS=0")
        counter: Any = ray.remote(num_cpus=0)(Counter).remote()
        worker: Any = ray.remote(num_cpus=1, num_gpus=int(on_gpu), max_restarts=RESTARTS, max_task_retries=RESTARTS)(
            Worker
        )
        # An actor beyond the capacity would never start, and its shard never be built.
        pool = [worker.remote(make) for _ in range(min(actors, capacity))]
        rows: dict[int, dict[str, Any]] = {}
        waiting = iter(range(shard_count))
        running = {
            actor.build.remote(index, counter): (actor, index) for actor, index in zip(pool, waiting, strict=False)
        }
        reported = 0
        while running:
            finished, _ = ray.wait(list(running), timeout=POLL_SECONDS)
            for reference in finished:
                actor, index = running.pop(reference)
                try:
                    rows[index] = ray.get(reference)
                except ray.exceptions.RayTaskError as error:
                    if isinstance(error.cause, UserError):
                        raise error.cause from error
                    raise
                except ray.exceptions.RayError as error:
                    raise UserError(
                        f"a Ray worker died {RESTARTS + 1} times ({type(error).__name__}), likely for lack of memory: "
                        f"finished shards are kept, run again with fewer WORKERS"
                    ) from error
                following = next(waiting, None)
                if following is not None:
                    running[actor.build.remote(following, counter)] = (actor, following)
            done = ray.get(counter.total.remote())
            progress(done - reported)
            reported = done
        return [rows[index] for index in range(shard_count)]
    finally:
        if started_here:
            ray.shutdown()
