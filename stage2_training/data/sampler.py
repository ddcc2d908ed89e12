"""A sampler that can begin an epoch in the middle, for runs that were interrupted there."""

from collections.abc import Iterator

import torch
from mmengine.dataset import DefaultSampler
from mmengine.registry import DATA_SAMPLERS


@DATA_SAMPLERS.register_module()
class ResumableSampler(DefaultSampler):
    """MMEngine's default sampler, whose order depends on seed and epoch alone, with a start inside the epoch.

    While an epoch lasts, its order takes 8 bytes per sample of the whole dataset in memory.
    """

    first: int = 0

    def start_at(self, first: int) -> None:
        """Let the next pass leave out the first samples of this rank; passes after it are whole again."""
        self.first = first

    def __iter__(self) -> Iterator[int]:
        first, self.first = self.first, 0
        size = len(self.dataset)
        places = range(self.rank, self.total_size, self.world_size)[first:]
        if not self.shuffle:
            return (place % size for place in places)
        generator = torch.Generator().manual_seed(self.seed + self.epoch)
        order = torch.randperm(size, generator=generator).numpy()  # a list of Python's numbers would be 8 times this
        return (int(order[place % size]) for place in places)
