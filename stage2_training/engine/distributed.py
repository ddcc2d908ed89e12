"""One run in several processes: joining the process group, and doing things on rank 0 only."""

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

# Longer than rank 0 may take to download weights or to evaluate while the others wait for it.
TIMEOUT = timedelta(hours=1)


@contextmanager
def process_group(device: str | None) -> Iterator[None]:
    """Join the process group that torchrun started (RANK, LOCAL_RANK, ... are set), one process per GPU.

    Only rank 0 prints. If several processes raise a user error, one of them reports it; the others exit silently
    with the same exit code.

    Args:
        device: `cpu` for gloo, `cuda` for NCCL; None: the GPU when there is one.

    Raises:
        UserError: there are fewer GPUs than processes.
        SystemExit: 2, another process has reported the error.
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
        with open(os.devnull, "w") as null, redirect_stdout(sys.stdout if rank == 0 else null):
            yield
    except UserError as error:
        if store.add("reported_errors", 1) == 1:
            raise
        time.sleep(1)  # torchrun ends all processes at the first failure: let the reporting one finish
        raise SystemExit(2) from error
    except Exception:
        time.sleep(3)  # it may only be that a peer was lost, which torchrun reports: it ends this process meanwhile
        raise
    dist.destroy_process_group()


def is_rank_zero() -> bool:
    """Whether this is the first process or the only one."""
    return not dist.is_initialized() or dist.get_rank() == 0


def on_rank_zero(task: Callable[[], Result]) -> Result:
    """Run a task in the first process while the others wait; all return its (picklable) result.

    Raises:
        UserError: the task raised it; it is then raised in every process.
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
    """Make the workers of a data loader end with the process that started them.

    A worker waiting for a queue whose other end was killed would wait forever, holding memory and the terminal.
    """
    loader.worker_init_fn = partial(_start_worker, loader.worker_init_fn)
    return loader


def _start_worker(init: Callable[[int], None] | None, worker: int) -> None:
    die_with_parent()
    if init is not None:
        init(worker)
