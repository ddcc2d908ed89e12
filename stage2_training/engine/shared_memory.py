"""Batches from data-loading processes when shared memory is small, as in Docker, which gives a container 64 MB.

PyTorch hands tensors over through `/dev/shm`. A worker that finds no room there dies of a bus error or loses its batch,
and the run then waits for it for ever. So a batch that might not fit goes through a pipe instead, which costs a copy.
"""

import os
import pickle
from collections.abc import Callable, Mapping
from typing import Any

from mmengine.dist import get_world_size
from torch import Tensor
from torch.utils.data import DataLoader

SHARED_MEMORY = "/dev/shm"
RESERVE = 1 << 20  # bytes, for the small tensors in data samples, and for others who use shared memory


def fit_shared_memory(loader: DataLoader) -> DataLoader:
    """Let the workers of a data loader use shared memory only while it has room for a batch of each worker."""
    if loader.num_workers:
        loader.collate_fn = _Collate(loader.collate_fn, loader.num_workers * get_world_size())
    return loader


class _Collate:
    """Collates samples to a batch that is pickled as `_Batch` says.

    Args:
        collate: makes a batch of a list of samples.
        workers: processes that may write at the same time.
    """

    def __init__(self, collate: Callable[[list[Any]], Any], workers: int) -> None:
        self.collate = collate
        self.workers = workers

    def __call__(self, samples: list[Any]) -> "_Batch":
        return _Batch(self.collate(samples), self.workers)


class _Batch:
    """A batch on its way to the main process, where it arrives as what it holds."""

    def __init__(self, content: Any, workers: int) -> None:
        self.content = content
        self.workers = workers

    def __reduce__(self) -> tuple[Any, ...]:
        # Called just before the tensors are written, so that each worker has at most one batch in writing.
        if _free_bytes() > RESERVE + (self.workers + 1) * _tensor_bytes(self.content):
            return _arrive, (self.content,)
        return pickle.loads, (pickle.dumps(self.content),)


def _arrive(content: Any) -> Any:
    return content


def _free_bytes() -> float:
    """Free shared memory; infinite on systems that have it elsewhere."""
    try:
        status = os.statvfs(SHARED_MEMORY)
    except OSError:
        return float("inf")
    return status.f_bavail * status.f_frsize


def _tensor_bytes(batch: Any) -> int:
    """Bytes of the tensors in nested dictionaries and sequences."""
    if isinstance(batch, Tensor):
        return batch.nbytes
    parts = batch.values() if isinstance(batch, Mapping) else batch if isinstance(batch, list | tuple) else ()
    return sum(map(_tensor_bytes, parts))
