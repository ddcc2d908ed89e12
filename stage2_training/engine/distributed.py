"""One run in several processes: starting them, joining the process group, and doing things on rank 0 only."""

import logging
import os
import signal
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
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


def start_processes(arguments: Sequence[str], count: int, device: str | None) -> None:
    """Run Python with these arguments in processes under torchrun, which keeps them together.

    Args:
        device: `cpu`, or None or `cuda` for one GPU per process.

    Raises:
        UserError: there are fewer GPUs than processes, or a process was killed.
        SystemExit: the processes' exit code, when it is not 0; they have printed their messages.
        KeyboardInterrupt: after Ctrl-C, when all processes have ended.
    """
    # Only the process that starts the others needs these.
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    if device != "cpu" and torch.cuda.device_count() < count:
        raise UserError(
            f"--gpus {count}: torch finds {torch.cuda.device_count()} GPUs here; use fewer, or --device cpu"
        )
    # torchrun's own default is one thread per process, which would leave cores idle.
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // count)))
    logging.disable()  # torchrun logs what is reported below in one line
    try:
        with tempfile.TemporaryDirectory() as logs:
            config = LaunchConfig(
                min_nodes=1,
                max_nodes=1,
                nproc_per_node=count,
                rdzv_backend="c10d",
                rdzv_endpoint="localhost:0",
                run_id=uuid.uuid4().hex,
                max_restarts=0,
                logs_specs=DefaultLogsSpecs(log_dir=logs),
            )
            elastic_launch(config, sys.executable)(*arguments)
    except ChildFailedError as error:
        _report_failures({rank: failure.exitcode for rank, failure in error.failures.items()}, count)
    except SignalException as error:
        if error.sigval == signal.SIGINT:
            raise KeyboardInterrupt from error
        raise SystemExit(128 + error.sigval) from error
    finally:
        logging.disable(logging.NOTSET)


def _report_failures(exit_codes: dict[int, int], processes: int) -> None:
    """End as the failed processes did; `exit_codes` by rank, as in `Popen.returncode`."""
    reported = [code for code in exit_codes.values() if code > 0]
    if reported:
        raise SystemExit(2 if 2 in reported else reported[0])
    rank, code = next(iter(exit_codes.items()))
    raise UserError(
        f"process {rank + 1} of {processes} was killed ({signal.Signals(-code).name}), which ended all; "
        f"finished checkpoints are kept, run again to resume"
    )


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
