"""Random transforms of a sample depend on its key (seed, epoch, position) and on nothing else."""

import random
from collections.abc import Iterator
from itertools import chain

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from mmengine.dataset import pseudo_collate
from torch.utils.data import DataLoader, Dataset

from stage1_proposals.common.errors import UserError
from stage2_training.data.sampler import ResumableSampler
from stage2_training.engine import steps as batches
from stage2_training.engine.steps import SeededBatchSampler, SeededDataset, StepLoader, images_per_process, passes

SAMPLES = 10


class Draws(Dataset):
    """Index, and a number from each generator that transforms draw from."""

    def __len__(self) -> int:
        return SAMPLES

    def __getitem__(self, index: int) -> tuple[float, ...]:
        return index, random.random(), float(np.random.rand()), float(torch.rand(()))


def loader(batch_size: int, passes: int, workers: int = 0, epoch: int = 0) -> StepLoader:
    dataset = SeededDataset(Draws())
    sampler = ResumableSampler(dataset, shuffle=True, seed=7)
    sampler.set_epoch(epoch)
    batch_sampler = SeededBatchSampler(sampler, batch_size, seed=3)
    data = DataLoader(
        dataset, batch_sampler=batch_sampler, num_workers=workers, persistent_workers=workers > 0, collate_fn=list
    )
    return StepLoader(data, passes)


def samples(steps: Iterator[list]) -> list[tuple[float, ...]]:
    return [sample for step in steps for batch in step for sample in batch]


def test_steps_are_groups_of_batches_and_the_last_may_be_short():
    steps = [[len(batch) for batch in step] for step in loader(2, 3)]
    assert steps == [[2, 2, 2], [2, 2]]
    assert len(loader(2, 3)) == 2
    assert [[len(batch) for batch in step] for step in loader(3, 1)] == [[3], [3], [3], [1]]


def test_randomness_depends_on_the_key_alone():
    expected = samples(loader(2, 2))
    assert sorted(sample[0] for sample in expected) == list(range(SAMPLES))
    assert len({sample[1:] for sample in expected}) == SAMPLES
    random.seed(1)
    np.random.seed(1)
    torch.manual_seed(1)
    assert samples(loader(4, 1)) == expected
    assert samples(loader(2, 2, workers=2)) == expected
    for workers in (0, 2):
        resumed = loader(2, 2, workers)
        for _ in range(2):
            resumed.start_at(1)
            assert samples(resumed) == expected[4:]
            assert samples(resumed) == expected  # passes after it are whole
    other = {sample[0]: sample[1:] for sample in samples(loader(2, 2, epoch=1))}
    assert not any(other[sample[0]] == sample[1:] for sample in expected)


@pytest.mark.parametrize(("processes", "per_process"), [(2, 2), (5, 1), (3, 1), (3, 2)])
def test_processes_share_what_one_would_load_step_by_step(monkeypatch, processes, per_process):
    """Each step's samples, and what they draw, are the same."""
    whole = [samples([step]) for step in loader(per_process * processes, 1)]
    shared: list[list] = []
    for rank in range(processes):
        monkeypatch.setattr(batches, "get_dist_info", lambda rank=rank: (rank, processes))
        monkeypatch.setattr("mmengine.dataset.sampler.get_dist_info", lambda rank=rank: (rank, processes))
        shared.append([samples([step]) for step in loader(per_process, 1)])
    together = [sorted(chain(*step)) for step in zip(*shared, strict=True)]
    assert together[: len(whole) - 1] == [sorted(step) for step in whole[:-1]]
    # Processes end an epoch together, which may take a few samples twice.
    assert set(whole[-1]) <= set(together[-1])


def test_metainfo_is_the_datasets_and_batches_are_mmengines():
    dataset = Draws()
    dataset.metainfo = {"classes": ("a",)}
    assert SeededDataset(dataset).metainfo == {"classes": ("a",)}
    assert not hasattr(SeededDataset(Draws()), "metainfo")
    assert pseudo_collate([{"inputs": 1}, {"inputs": 2}]) == {"inputs": [1, 2]}  # what the loop counts images by


@given(st.integers(1, 32), st.integers(1, 16), st.integers(1, 8), st.integers(1, 40))
def test_processes_passes_and_images_make_the_total(processes, images, times, most):
    total = processes * images * times
    assert passes(total, images, processes) == times
    chosen = images_per_process(total, processes, most)
    assert chosen <= most
    assert processes * chosen * passes(total, chosen, processes) == total


@pytest.mark.parametrize(
    ("processes", "images", "times"), [(1, 12, 8), (2, 12, 4), (8, 12, 1), (16, 6, 1), (32, 3, 1), (3, 8, 4)]
)
def test_the_papers_batch_on_many_machines(processes, images, times):
    assert images_per_process(96, processes, 12) == images
    assert passes(96, images, processes) == times


def test_a_batch_that_does_not_fit_is_refused_with_sizes_that_do():
    message = r"--batch-size 5 does not divide the 48 images .* 2 processes .* 96; use one of 1, 2, 3, 4, 6, 8, 12, "
    with pytest.raises(UserError, match=message):
        passes(96, 5, 2)
    message = r"5 processes cannot share the total batch of 96 evenly; use 1, 2, 3, 4, .* --total-batch 95 or 100$"
    with pytest.raises(UserError, match=message):
        images_per_process(96, 5, 12)
    with pytest.raises(UserError, match=r"--total-batch 16$"):
        images_per_process(8, 16, 12)
