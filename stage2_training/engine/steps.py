"""What an optimizer step is made of: seeded samples, batches, groups of batches, and how processes share them."""

import random
from collections.abc import Iterable, Iterator, Sized
from itertools import islice
from math import ceil
from typing import Any, TypeVar, cast

import numpy as np
import torch
from mmengine.dist import get_dist_info
from mmengine.registry import DATA_SAMPLERS, DATASETS
from torch.utils.data import DataLoader, Dataset, Sampler

from stage1_proposals.common.errors import UserError

Item = TypeVar("Item")
# Names a sample in a run: the run's seed, the epoch, and the sample's position in the epoch's order over all processes.
SampleKey = tuple[int, int, int]
SeededIndex = tuple[int, SampleKey]


def derive_seed(*key: int) -> int:
    """A well-mixed seed in [0, 2^63) from any numbers."""
    return int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0] >> np.uint64(1))


@DATASETS.register_module()
class SeededDataset(Dataset):
    """A dataset whose random transforms depend on the sample's key only, not on the process that loads it or on when.

    Args:
        dataset: MMEngine's, or its config. It is indexed with `SeededIndex` pairs.
    """

    def __init__(self, dataset: Any) -> None:
        self.dataset = DATASETS.build(dataset) if isinstance(dataset, dict) else dataset

    def __getattr__(self, name: str) -> Any:
        """What samplers and MMEngine read from the dataset itself: `metainfo`, `full_init`, `shards`, ..."""
        if name == "dataset":  # while unpickling, before it is set
            raise AttributeError(name)
        return getattr(self.dataset, name)

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, seeded_index: SeededIndex) -> Any:
        index, key = seeded_index
        seed = derive_seed(*key)
        random.seed(seed)
        np.random.seed(seed % 2**32)
        torch.default_generator.manual_seed(seed)  # the CPU's alone: `torch.manual_seed` would initialise GPUs as well
        return self.dataset[index]


@DATA_SAMPLERS.register_module()
class SeededBatchSampler(Sampler[list[SeededIndex]]):
    """A sampler's indices in batches, each with its `SampleKey`.

    Args:
        sampler: gives rank r of W the positions r, r + W, r + 2 W, ... of an order that depends on its `epoch`, and can
            `start_at` one of them.
        batch_size: images of a process at a time.
        seed: of the run.
    """

    def __init__(self, sampler: Any, batch_size: int, seed: int) -> None:
        self.sampler = sampler
        self.batch_size = batch_size
        self.seed = seed
        self._first = 0

    def start_at(self, batch: int) -> None:
        """Let the next pass skip the first batches; later passes are whole again."""
        self._first = batch * self.batch_size
        self.sampler.start_at(self._first)

    def __len__(self) -> int:
        return ceil(len(self.sampler) / self.batch_size)

    def __iter__(self) -> Iterator[list[SeededIndex]]:
        # As a generator, this does nothing before the first batch is requested: a data loader with workers makes two
        # iterators and uses the second.
        first, self._first = self._first, 0
        rank, processes = get_dist_info()
        epoch = self.sampler.epoch
        numbered = enumerate(self.sampler, start=first)
        yield from _groups(
            ((index, (self.seed, epoch, rank + processes * number)) for number, index in numbered), self.batch_size
        )


class StepLoader(Sized, Iterable[list[Any]]):
    """A data loader's batches in lists, one list for each optimizer step. Its length is the number of steps.

    Args:
        loader: over a `SeededBatchSampler`.
        passes: batches per step; the last step of an epoch may have fewer.
    """

    def __init__(self, loader: DataLoader, passes: int) -> None:
        self.loader = loader
        self.batches = cast(SeededBatchSampler, loader.batch_sampler)
        self.dataset = loader.dataset
        self.sampler = self.batches.sampler
        self.passes = passes

    def start_at(self, step: int) -> None:
        """Let the next pass over the data skip the first steps; later passes are whole again."""
        self.batches.start_at(step * self.passes)

    def __len__(self) -> int:
        return ceil(len(self.loader) / self.passes)

    def __iter__(self) -> Iterator[list[Any]]:
        return _groups(self.loader, self.passes)


def _groups(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    remaining = iter(items)
    while group := list(islice(remaining, size)):
        yield group


def passes(total: int, per_process: int, processes: int) -> int:
    """How many forward and backward passes a process makes before an optimizer step.

    Args:
        total: images per optimizer step, over all processes.
        per_process: images that a process takes at a time.

    Raises:
        UserError: the total is not a whole number of such passes; the message names sizes that fit.
    """
    _check_processes(total, processes)
    share = total // processes
    if share % per_process:
        raise UserError(
            f"--batch-size {per_process} does not divide the {share} images that each of {processes} processes takes "
            f"of the total batch of {total}; use one of {_listed(_divisors(share))}, or another --total-batch"
        )
    return share // per_process


def images_per_process(total: int, processes: int, most: int) -> int:
    """The most images, up to `most`, that a process can take at a time.

    Raises:
        UserError: the processes cannot share the total evenly; the message names numbers that fit.
    """
    _check_processes(total, processes)
    return max(divisor for divisor in _divisors(total // processes) if divisor <= most)


def _check_processes(total: int, processes: int) -> None:
    if total % processes:
        near = sorted({max(processes, total // processes * processes), -(-total // processes) * processes})
        raise UserError(
            f"{processes} processes cannot share the total batch of {total} evenly; "
            f"use {_listed(_divisors(total))} processes, or --total-batch {' or '.join(map(str, near))}"
        )


def _divisors(number: int) -> list[int]:
    return [divisor for divisor in range(1, number + 1) if number % divisor == 0]


def _listed(numbers: list[int]) -> str:
    return ", ".join(map(str, numbers))
