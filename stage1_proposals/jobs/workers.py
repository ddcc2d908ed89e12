"""Ray actors for the job: each holds one shard builder, computing one shard while it writes the one before.

An actor that dies, or whose node does, is replaced where there is room, and its shards go to whoever is free.
"""

import logging
import math
import os
import signal
import socket
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Any, Protocol

import ray
import ray.exceptions
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from stage1_proposals.common.errors import UserError

POLL_SECONDS = 0.5
CONNECT_SECONDS = 10.0
NOTICE_SECONDS = 60.0  # without any worker, before it is said
DEATHS = 3  # that one shard may cost; the next ends the run

Row = dict[str, Any]
logger = logging.getLogger(__name__)


class Builder(Protocol):
    def compute(self, task: Any, progress: Callable[[int], None]) -> Callable[[], Row]: ...


MakeBuilder = Callable[[], Builder]  # called inside the actor


class Tally:
    """Images done, over all actors; a shard that is done again counts once."""

    def __init__(self) -> None:
        self.done: dict[int, int] = {}

    def report(self, index: int, count: int) -> None:
        self.done[index] = count

    def total(self) -> int:
        return sum(self.done.values())


class Worker:
    """One process with a backbone. Ray calls it from two threads, so one shard can be written beside the next."""

    def __init__(self, make: MakeBuilder, tally: Any) -> None:
        self.make = make
        self.tally = tally
        self.finishes: dict[int, Callable[[], Row]] = {}

    def ready(self) -> None:
        """Make the builder. In a call of its own, since Ray hides what a constructor raises behind an actor's death."""
        self.builder = self.make()

    def alive(self) -> None:
        """Returns, if the process still runs."""

    def compute(self, index: int, task: Any) -> None:
        done = 0
        report: Any = None

        def progress(count: int) -> None:
            nonlocal done, report
            done += count
            report = self.tally.report.remote(index, done)

        self.finishes[index] = self.builder.compute(task, progress)
        if report is not None:
            ray.get(report)  # counted before the shard counts as done

    def write(self, index: int) -> Row:
        return self.finishes.pop(index)()


@contextmanager
def _cluster() -> Iterator[None]:
    """A connection to Ray, unless this process has one: the cluster at `RAY_ADDRESS`, or one for this run."""
    if ray.is_initialized():
        yield
        return
    address = os.environ.get("RAY_ADDRESS", "")
    host, colon, port = address.rpartition(":")
    try:
        if colon and port.isdigit() and "/" not in host:  # Ray itself would try for minutes
            socket.create_connection((host.strip("[]"), int(port)), CONNECT_SECONDS).close()
        # For the workers of a cluster started here: they compute in threads, to which glibc would give arenas of their
        # own, and those go back to the kernel block by block whatever `keep_freed_memory` says, which costs up to a
        # tenth of the time.
        os.environ.setdefault("MALLOC_ARENA_MAX", "1")
        ray.init(include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    except (OSError, ValueError, RuntimeError) as error:  # another version of Ray or Python is a RuntimeError
        where = address or "this machine"
        raise UserError(f"Ray at {where}: cannot be reached or started ({error}); WORKERS=0 does without") from error
    try:
        yield
    finally:
        ray.shutdown()


@contextmanager
def _remembered_interrupts() -> Iterator[list[int]]:
    """Ctrl-C raises KeyboardInterrupt as ever, and stands in the list: Python drops one that meets a destructor."""
    pressed: list[int] = []

    def remember(number: int, frame: FrameType | None) -> None:
        pressed.append(number)
        signal.default_int_handler(number, frame)

    if threading.current_thread() is not threading.main_thread():  # Python gives signals to that one alone
        yield pressed
        return
    former = signal.signal(signal.SIGINT, remember)
    try:
        yield pressed
    finally:
        signal.signal(signal.SIGINT, former)


def _why(error: Exception) -> str:
    """The end of what Ray says of a death, where the reason stands."""
    lines = str(error).strip().splitlines()
    return lines[-1].strip()[:200] if lines else type(error).__name__


class _Dispatch:
    """Tasks given to workers as they become free, until each has its result."""

    def __init__(self, make: MakeBuilder, tasks: Iterable[Any], actors: int, on_gpu: bool) -> None:
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        # Should it be killed, it starts anew: what it counted is for the progress bar alone.
        tally_options = {"num_cpus": 0, "scheduling_strategy": here, "max_restarts": -1, "max_task_retries": -1}
        self.tally: Any = ray.remote(Tally).options(**tally_options).remote()
        self.needs = "GPU and CPU core" if on_gpu else "CPU core"
        options = {"num_cpus": 1, "num_gpus": int(on_gpu), "max_concurrency": 2}
        self.new_worker = lambda: ray.remote(Worker).options(**options).remote(make, self.tally)
        self.workers: list[Any] = []
        self.waiting = enumerate(tasks)
        self.again: deque[tuple[int, Any]] = deque()
        self.idle: list[Any] = []
        self.running: dict[Any, tuple[str, Any, int, Any]] = {}  # reference: step, actor, index, task
        self.deaths: Counter[int] = Counter()
        self.rows: dict[int, Row] = {}
        self.begun = False
        self.most_failed_starts = DEATHS * actors
        for _ in range(actors):
            self._start()

    def _start(self) -> None:
        actor: Any = self.new_worker()
        self.workers.append(actor)
        self.running[actor.ready.remote()] = ("start", actor, -1, None)

    def _give(self, actor: Any) -> None:
        """The actor's next shard, those of the dead first."""
        index, task = self.again.popleft() if self.again else next(self.waiting, (-1, None))
        if task is None:
            self.idle.append(actor)
        else:
            self.running[actor.compute.remote(index, task)] = ("compute", actor, index, task)

    def _lost(self, step: str, dead: Any, index: int, task: Any, error: Exception) -> None:
        """A worker died at a step, or is out of reach: another takes its place, and its shards go back."""
        ray.kill(dead)  # one out of reach would keep its core
        self.workers.remove(dead)
        lost = [(step, index, task)]
        for reference, (other, actor, *shard) in list(self.running.items()):
            if actor is dead:
                lost.append((other, *shard))
                del self.running[reference]
        for step, index, task in lost:
            self.deaths[index] += 1
            if step == "start" and self.deaths[index] > self.most_failed_starts:
                if self._at_work():
                    return  # the others go on without it
                raise UserError(
                    f"Ray workers die before they begin, {self.deaths[index]} did: {_why(error)}"
                ) from error
            if step != "start" and self.deaths[index] > DEATHS:
                raise UserError(
                    f"a Ray worker died {self.deaths[index]} times at the same shard, likely for lack of memory: "
                    f"finished shards are kept, run again with fewer WORKERS ({_why(error)})"
                ) from error
            if step != "start":
                self.again.append((index, task))
        self._start()
        # The idle may have died with the same node unnoticed: they get a lost shard once they answer.
        self.running |= {actor.alive.remote(): ("start", actor, -1, None) for actor in self.idle}
        self.idle.clear()

    def _step(self, reference: Any) -> None:
        """One thing that a worker has finished, or failed at."""
        step, actor, index, task = self.running.pop(reference)
        try:
            result = ray.get(reference)
        except ray.exceptions.RayTaskError as error:
            if isinstance(error.cause, UserError):
                raise error.cause from error
            raise
        except ray.exceptions.RayError as error:
            self._lost(step, actor, index, task, error)
            return
        if step == "write":
            self.rows[index] = result
            return
        if step == "start":
            self.begun = True
            del self.deaths[index]  # over days, nodes that come and go may cost many a start
        else:
            self.running[actor.write.remote(index)] = ("write", actor, index, task)
        self._give(actor)

    def _unfinished(self) -> bool:
        return bool(self.again) or self._at_work()

    def _at_work(self) -> bool:
        return any(step != "start" for step, *_ in self.running.values())

    def close(self) -> None:
        """Give every core back at once: Ray would wait for Python to collect what refers to the workers."""
        for actor in (*self.workers, self.tally):
            ray.kill(actor)

    def run(self, progress: Callable[[int], None], interrupted: Sequence[int]) -> list[Row]:
        """Every task's result, in the tasks' order; until `interrupted` is not empty any more."""
        reported, begun, last_at_work = 0, False, time.monotonic()
        while not self.rows or self._unfinished():
            if interrupted:
                raise KeyboardInterrupt
            finished, _ = ray.wait(list(self.running), timeout=POLL_SECONDS)
            for reference in finished:
                if reference in self.running:  # not of a worker found dead meanwhile
                    self._step(reference)
            done = ray.get(self.tally.total.remote())
            if done != reported or begun != self.begun:
                progress(done - reported)
            reported, begun = done, self.begun
            if self._at_work():
                last_at_work = time.monotonic()
            elif time.monotonic() - last_at_work > NOTICE_SECONDS:
                last_at_work = math.inf
                logger.warning("No worker is running: Ray waits for a free %s.", self.needs)
        return [self.rows[index] for index in range(len(self.rows))]


def run_on_ray(
    make: MakeBuilder, tasks: Iterable[Any], actors: int, on_gpu: bool, progress: Callable[[int], None]
) -> list[Row]:
    """Do every task on Ray actors.

    Joins the cluster at `RAY_ADDRESS`, or the one `ray start` left on this machine, else starts one for this run.

    Args:
        tasks: what builders are given, one per shard; at least one.
        actors: how many, at most; fewer where the cluster has fewer cores (or GPUs), since each needs one of its own.
        progress: called with 0 as work begins, then with the number of images done since the last call; less than
            none where work was lost.

    Returns:
        Each task's result, in the tasks' order.

    Raises:
        UserError: raised by a builder; a shard that costs worker after worker; a cluster out of reach, or without a
            GPU when one is asked for. Other exceptions arrive as Ray's, with the remote traceback.
    """
    with _cluster():
        capacity = int(ray.cluster_resources().get("GPU" if on_gpu else "CPU", 0))
        if capacity < 1:
            raise UserError(f"Ray has no {'GPU' if on_gpu else 'CPU core'} to give: use WORKERS=0")
        dispatch = _Dispatch(make, tasks, min(actors, capacity), on_gpu)
        try:
            with _remembered_interrupts() as interrupted:
                return dispatch.run(progress, interrupted)
        finally:
            dispatch.close()
