"""One run in several processes: joining them, and leaving to the first what only one may do."""

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from datetime import timedelta
from functools import partial
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch.distributed.rendezvous import rendezvous
from torch.utils.data import DataLoader

from stage1_proposals.common.errors import UserError
from stage1_proposals.common.system import die_with_parent

Result = TypeVar("Result")

# Longer than the first process may download weights or evaluate while the others wait for it.
TIMEOUT = timedelta(hours=1)


@contextmanager
def joined(device: str | None) -> Iterator[None]:
    """Join the processes that torchrun started (it says which in RANK, LOCAL_RANK and so on), one per GPU.

    Only the first process prints. Of the user errors that several processes raise only one gets through; the others
    leave with its exit code and without a word.

    Args:
        device: `cpu` for gloo, `cuda` for NCCL; None: the GPU when there is one.

    Raises:
        UserError: there are fewer GPUs than processes.
        SystemExit: 2, another process has spoken.
    """
    gpu = device != "cpu" and torch.cuda.is_available()
    if gpu:
        local, found = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
        if local >= found:
            raise UserError(f"process {local + 1} has no GPU: torch finds {found}; start at most one process per GPU")
        torch.cuda.set_device(local)
    store, rank, processes = next(iter(rendezvous("env://", timeout=TIMEOUT)))
    backend = "nccl" if gpu else "gloo"
    dist.init_process_group(backend, store=store, rank=rank, world_size=processes, timeout=TIMEOUT)
    try:
        with open(os.devnull, "w") as nowhere, redirect_stdout(sys.stdout if rank == 0 else nowhere):
            yield
    except UserError as error:
        if store.add("spoken", 1) == 1:
            raise
        time.sleep(1)  # the first failure ends all: let the process that speaks finish
        raise SystemExit(2) from error
    except Exception:
        time.sleep(3)  # a process that lost another complains of that; torchrun ends it before it does
        raise
    dist.destroy_process_group()


def is_rank_zero() -> bool:
    """Whether this is the first process, or the only one."""
    return not dist.is_initialized() or dist.get_rank() == 0


def on_rank_zero(task: Callable[[], Result]) -> Result:
    """Do something in the first process, while the others wait; all get its (picklable) result.

    Raises:
        UserError: the task raised it; it is raised in every process.
    """
    if not dist.is_initialized():
        return task()
    outcome: list[Any] = [None, None]
    if is_rank_zero():
        try:
            outcome[0] = task()
        except UserError as error:
            outcome[1] = str(error)
    dist.broadcast_object_list(outcome)
    if outcome[1] is not None:
        raise UserError(outcome[1])
    return outcome[0]


def bind_workers(loader: DataLoader) -> DataLoader:
    """Let the workers of a data loader die with the process that started them.

    A worker that waits for a queue whose other end was killed waits for ever, holding memory and the terminal.
    """
    loader.worker_init_fn = partial(_start_worker, loader.worker_init_fn)
    return loader


def _start_worker(init: Callable[[int], None] | None, worker: int) -> None:
    die_with_parent()
    if init is not None:
        init(worker)
