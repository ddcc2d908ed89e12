"""What the benchmarks share: functions measured in processes of their own, and how values are printed."""

import multiprocessing
import os
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from typing import Any

from pipelines.console import describe_machine

_barrier: Any = None


def in_process(function: Callable[..., Any], *args: Any, environment: Mapping[str, str] | None = None) -> Any:
    """Call a function in a fresh process, which inherits neither threads nor memory, and return its result."""
    return in_processes(1, function, *args, environment=environment)[0]


def in_processes(
    count: int, function: Callable[..., Any], *args: Any, environment: Mapping[str, str] | None = None
) -> list[Any]:
    """Call a function in several fresh processes at once; `wait_for_all` in it waits for the others."""
    context = multiprocessing.get_context("spawn")
    setup = (context.Barrier(count), dict(environment or {}))
    with ProcessPoolExecutor(count, context, _set_up, setup) as pool:
        return [future.result() for future in [pool.submit(function, *args) for _ in range(count)]]


def _set_up(barrier: Any, environment: dict[str, str]) -> None:
    global _barrier
    _barrier = barrier
    os.environ.update(environment)


def wait_for_all() -> None:
    if _barrier is not None:
        _barrier.wait()


def synchronize(device: str) -> None:
    if device == "cuda":
        import torch  # here, so that a process of `in_processes` imports no more than its function needs

        torch.cuda.synchronize()


def print_machine(device: str) -> None:
    print(f"{describe_machine(device)}; {os.cpu_count()} CPU cores\n", flush=True)


def print_values(values: Mapping[str, str]) -> None:
    width = max(map(len, values))
    print(*(f"{name:<{width}}  {value}" for name, value in values.items()), "", sep="\n", flush=True)
