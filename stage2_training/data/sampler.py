"""A sampler that can begin an epoch in the middle, for runs that were interrupted there."""

from collections.abc import Iterator
from itertools import islice

from mmengine.dataset import DefaultSampler
from mmengine.registry import DATA_SAMPLERS


@DATA_SAMPLERS.register_module()
class ResumableSampler(DefaultSampler):
    """MMEngine's default sampler, whose order depends on seed and epoch alone, with a start inside the epoch."""

    first: int = 0

    def start_at(self, first: int) -> None:
        """Let the next pass leave out the first samples of this rank; passes after it are whole again."""
        self.first = first

    def __iter__(self) -> Iterator[int]:
        first, self.first = self.first, 0
        return islice(super().__iter__(), first, None)
