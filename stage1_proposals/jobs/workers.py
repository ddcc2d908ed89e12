"""Ray actors that build shards: each holds a shard builder and computes one shard while it writes the one before.

When an actor or its node dies, a new actor is started where there is room, and the lost shards go to whichever actor is
free next.
"""

import logging
import math
import os
import signal
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from types import FrameType
from typing import Any, Generic, Literal

import ray
import ray.exceptions

from stage1_proposals.common.errors import UserError
from stage1_proposals.jobs.ray_address import check_reachable, unreachable
from stage1_proposals.jobs.tasks import Builder, Result

POLL_SECONDS = 0.5
NOTICE_SECONDS = 60.0  # after so long without a running worker, the user is told
MAX_DEATHS = 3  # workers that may die at one shard; one more ends the run

logger = logging.getLogger(__name__)

MakeBuilder = Callable[[], Builder[Result]]  # called inside the actor


class Worker:
    """Actor with a builder. Ray calls it from three threads: it writes one shard while it computes the next, and tells
    meanwhile how far it is.
    """

    def __init__(self, make_builder: MakeBuilder) -> None:
        self.make_builder = make_builder
        self.writers: dict[int, Callable[[], Any]] = {}
        self.computing = (-1, 0)

    def start(self) -> None:
        """Make the builder; not in the constructor, whose exceptions Ray reports as the actor's death."""
        self.builder = self.make_builder()

    def ping(self) -> tuple[int, int]:
        """Return if the process is alive: the shard that it computes, and the images done of it."""
        return self.computing

    def compute(self, index: int, task: Any) -> int:
        """Compute a shard and keep it until it is written; returns the number of its images."""
        self.computing = (index, 0)

        def progress(count: int) -> None:
            self.computing = (index, self.computing[1] + count)

        self.writers[index] = self.builder.compute(task, progress)
        return self.computing[1]

    def write(self, index: int) -> Any:
        """Write a shard that has been computed, and return its result."""
        return self.writers.pop(index)()


@contextmanager
def _cluster() -> Iterator[None]:
    """Connect to the Ray cluster at `RAY_ADDRESS`, or start one for this run, unless this process is connected."""
    if ray.is_initialized():
        yield
        return
    address = os.environ.get("RAY_ADDRESS", "")
    check_reachable(address)
    try:
        _init()
    except (OSError, ValueError, RuntimeError) as error:  # another version of Ray or Python is a RuntimeError
        raise unreachable(address, error) from error
    try:
        yield
    finally:
        ray.shutdown()


START_TIMEOUT = "timed out during startup"  # in the message of Ray's plain Exception
TRIES = 3


def _init() -> None:
    """Connect to a cluster or start one; on a busy machine, one may not be up in the 30 s that Ray gives it."""
    for _ in range(TRIES):
        try:
            ray.init(include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
            return
        except Exception as error:
            if START_TIMEOUT not in str(error):
                raise
            ray.shutdown()
    raise RuntimeError("it was not up in 30 s, three times")


@contextmanager
def _recorded_interrupts() -> Iterator[list[int]]:
    """Record each Ctrl-C besides raising KeyboardInterrupt, which Python drops when it is raised in a destructor."""
    interrupts: list[int] = []

    def record(number: int, frame: FrameType | None) -> None:
        interrupts.append(number)
        signal.default_int_handler(number, frame)

    if threading.current_thread() is not threading.main_thread():  # only the main thread receives signals
        yield interrupts
        return
    former = signal.signal(signal.SIGINT, record)
    try:
        yield interrupts
    finally:
        signal.signal(signal.SIGINT, former)


def _reason(error: Exception) -> str:
    """The last line of Ray's message about a death, which has the reason."""
    lines = str(error).strip().splitlines()
    return lines[-1].strip()[:200] if lines else type(error).__name__


@dataclass(frozen=True)
class _Call:
    """A call of a worker's method that has not returned yet.

    Attributes:
        step: name of the method.
        worker: the actor.
        index, task: the shard's, for `compute` and `write`.
    """

    step: Literal["start", "ping", "compute", "write"]
    worker: Any
    index: int = -1
    task: Any = None

    @property
    def is_work(self) -> bool:
        return self.step in ("compute", "write")


class _Dispatcher(Generic[Result]):
    """Gives tasks to workers as they become free, until each task has its result."""

    def __init__(self, make_builder: MakeBuilder[Result], tasks: Iterable[Any], actors: int, on_gpu: bool) -> None:
        self.needs = "GPU and CPU core" if on_gpu else "CPU core"
        worker_class = ray.remote(Worker).options(num_cpus=1, num_gpus=int(on_gpu), max_concurrency=3)
        self.new_worker = lambda: worker_class.remote(make_builder)
        self.workers: list[Any] = []
        self.idle: list[Any] = []
        self.waiting = enumerate(tasks)
        self.lost: deque[tuple[int, Any]] = deque()  # (index, task) of shards whose worker died
        self.calls: dict[Any, _Call] = {}  # by Ray's reference to their result
        self.results: dict[int, Result] = {}
        self.done: dict[int, int] = {}  # images, of each shard
        self.computed: set[int] = set()  # shards whose number of images is final
        self.pings: dict[Any, Any] = {}  # workers that were asked how far they are, by the reference to the answer
        self.deaths: Counter[int] = Counter()  # per shard
        self.failed_starts = 0  # since a worker last started
        self.max_failed_starts = MAX_DEATHS * actors
        self.has_begun = False
        for _ in range(actors):
            self._start_worker()

    def run(self, progress: Callable[[int], None], interrupts: Sequence[int]) -> list[Result]:
        """Each task's result, in the tasks' order; raises KeyboardInterrupt once `interrupts` has an item."""
        reported, reported_begin, last_at_work = 0, False, time.monotonic()
        while not self.results or self.lost or self._is_at_work():
            if interrupts:
                raise KeyboardInterrupt
            finished, _ = ray.wait(list(self.calls), timeout=POLL_SECONDS)
            for reference in finished:
                if reference in self.calls:  # its worker has not been found dead meanwhile
                    self._finish(reference)
            self._count_images()
            done = sum(self.done.values())
            if done != reported or reported_begin != self.has_begun:
                progress(done - reported)
            reported, reported_begin = done, self.has_begun
            if self._is_at_work():
                last_at_work = time.monotonic()
            elif time.monotonic() - last_at_work > NOTICE_SECONDS:
                last_at_work = math.inf
                logger.warning("No worker is running: Ray waits for a free %s.", self.needs)
        return [self.results[index] for index in range(len(self.results))]

    def close(self) -> None:
        """Kill all workers, so that their cores are free at once and not when Python collects the references."""
        for worker in self.workers:
            ray.kill(worker)

    def _count_images(self) -> None:
        """Take the answers of the workers that were asked how far they are, and ask those that compute anew."""
        answered, _ = ray.wait(list(self.pings), num_returns=len(self.pings), timeout=0) if self.pings else ([], [])
        for reference in answered:
            del self.pings[reference]
            with suppress(ray.exceptions.RayError):  # a dead worker, which its other calls tell of
                index, count = ray.get(reference)
                if index >= 0 and index not in self.computed:
                    self.done[index] = count
        computing = [call.worker for call in self.calls.values() if call.step == "compute"]
        silent = [*self.pings.values()]
        self.pings |= {worker.ping.remote(): worker for worker in computing if worker not in silent}

    def _start_worker(self) -> None:
        worker: Any = self.new_worker()
        self.workers.append(worker)
        self.calls[worker.start.remote()] = _Call("start", worker)

    def _give_task(self, worker: Any) -> None:
        """Give a free worker its next shard, lost ones first."""
        index, task = self.lost.popleft() if self.lost else next(self.waiting, (-1, None))
        if task is None:
            self.idle.append(worker)
        else:
            self.calls[worker.compute.remote(index, task)] = _Call("compute", worker, index, task)

    def _finish(self, reference: Any) -> None:
        """Handle a call that has returned or failed."""
        call = self.calls.pop(reference)
        try:
            result = ray.get(reference)
        except ray.exceptions.RayTaskError as error:
            if isinstance(error.cause, UserError):
                raise error.cause from error
            raise
        except ray.exceptions.RayError as error:  # the worker died, or its node is out of reach
            self._replace_worker(call, error)
            return
        if call.step == "write":
            self.results[call.index] = result
            return  # the worker already computes its next shard
        if call.step == "compute":
            self.done[call.index] = result
            self.computed.add(call.index)
            self.calls[call.worker.write.remote(call.index)] = _Call("write", call.worker, call.index, call.task)
        else:
            self.has_begun = True
            self.failed_starts = 0  # over days, nodes that come and go may cost many starts
        self._give_task(call.worker)

    def _replace_worker(self, failed: _Call, error: Exception) -> None:
        """Start a worker in place of a dead one, and take back the dead one's shards."""
        ray.kill(failed.worker)  # a worker out of reach would keep its core
        self.workers.remove(failed.worker)
        failed_calls = [failed]
        for reference, call in list(self.calls.items()):
            if call.worker is failed.worker:
                failed_calls.append(self.calls.pop(reference))
        for call in failed_calls:
            if call.is_work:
                self._take_back(call, error)
            else:
                self.failed_starts += 1
        start_failed = not all(call.is_work for call in failed_calls)
        if start_failed and self.failed_starts > self.max_failed_starts:
            if self._is_at_work():
                return  # the others go on without a replacement
            raise UserError(f"Ray workers die before they begin, {self.failed_starts} did: {_reason(error)}") from error
        self._start_worker()
        # Idle workers may have died unnoticed with the same node: they get a lost shard once they answer.
        self.calls |= {worker.ping.remote(): _Call("ping", worker) for worker in self.idle}
        self.idle.clear()

    def _take_back(self, call: _Call, error: Exception) -> None:
        """Queue the shard of a failed call again.

        Raises:
            UserError: too many workers have died at this shard.
        """
        self.deaths[call.index] += 1
        if self.deaths[call.index] > MAX_DEATHS:
            raise UserError(
                f"a Ray worker died {self.deaths[call.index]} times at the same shard, likely for lack of memory: "
                f"finished shards are kept, run again with fewer WORKERS ({_reason(error)})"
            ) from error
        self.done.pop(call.index, None)
        self.computed.discard(call.index)
        self.lost.append((call.index, call.task))

    def _is_at_work(self) -> bool:
        """Whether any worker computes or writes a shard."""
        return any(call.is_work for call in self.calls.values())


def run_on_ray(
    make_builder: MakeBuilder[Result],
    tasks: Iterable[Any],
    actors: int,
    on_gpu: bool,
    progress: Callable[[int], None],
) -> list[Result]:
    """Do every task on Ray actors.

    Joins the cluster at `RAY_ADDRESS`, or the one that `ray start` left on this machine, or starts one for this run.

    Args:
        make_builder: called in each actor.
        tasks: what builders are given, one per shard; at least one.
        actors: how many, at most; each needs a core of its own, and a GPU if `on_gpu`, so a small cluster has fewer.
        progress: called with 0 as work begins, then with the number of images done since the last call, which is
            negative when work was lost.

    Returns:
        Each task's result, in the tasks' order.

    Raises:
        UserError: raised by a builder; a shard at which worker after worker dies; a cluster that cannot be reached, or
            that has no GPU when one is needed. Other exceptions are Ray's, with the remote traceback.
    """
    with _cluster():
        capacity = int(ray.cluster_resources().get("GPU" if on_gpu else "CPU", 0))
        if capacity < 1:
            raise UserError(f"Ray has no {'GPU' if on_gpu else 'CPU core'}; use WORKERS=0")
        dispatcher = _Dispatcher(make_builder, tasks, min(actors, capacity), on_gpu)
        try:
            with _recorded_interrupts() as interrupts:
                return dispatcher.run(progress, interrupts)
        finally:
            dispatcher.close()
