"""Doing tasks, each of which writes its own files: on Ray actors, or in this process."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, Protocol, TypeVar

import torch

Result = TypeVar("Result")
Result_co = TypeVar("Result_co", covariant=True)


class Builder(Protocol[Result_co]):
    """Computes a task; the function it returns writes the outcome and returns the task's result."""

    def compute(self, task: Any, progress: Callable[[int], None]) -> Callable[[], Result_co]: ...


@contextmanager
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _run_in_process(builder: Builder[Result], tasks: Sequence[Any], progress: Callable[[int], None]) -> list[Result]:
    """Do every task in this process with one thread of PyTorch, writing one result while computing the next."""
    results: list[Future[Result]] = []
    progress(0)
    with one_thread(), ThreadPoolExecutor(1) as writer:
        for index, task in enumerate(tasks):
            results.append(writer.submit(builder.compute(task, progress)))
            if index:
                results[index - 1].result()  # at most one result waits in memory
        return [result.result() for result in results]


def run_tasks(
    make_builder: Callable[[], Builder[Result]],
    tasks: Sequence[Any],
    workers: int | None,
    on_gpu: bool,
    progress: Callable[[int], None],
) -> list[Result]:
    """Do every task, each of which writes its own files, on Ray actors or in this process.

    Args:
        make_builder: makes what does the tasks, in each actor or here.
        workers: number of Ray actors, 0 for this process alone, or None for one per GPU or core of the Ray cluster.
        on_gpu: whether each actor needs a GPU.
        progress: called with 0 as work begins, then with numbers of images done.

    Returns:
        Each task's result, in the tasks' order.

    Raises:
        UserError: a builder raises it, or as `run_on_ray`.
    """
    if workers == 0:
        return _run_in_process(make_builder(), tasks, progress)
    from stage1_proposals.jobs.workers import run_on_ray

    return run_on_ray(make_builder, tasks, min(workers or len(tasks), len(tasks)), on_gpu, progress)
