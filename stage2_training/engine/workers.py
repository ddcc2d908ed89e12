"""Data-loading processes that never outlive the run they load for."""

from collections.abc import Callable
from functools import partial

from torch.utils.data import DataLoader

from stage2_training.parent import die_with_parent


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
