"""Samplers that can begin an epoch in the middle, for runs that were interrupted there."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from mmengine.dataset import DefaultSampler
from mmengine.registry import DATA_SAMPLERS
from numpy.typing import NDArray


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
        places = self._places(first)
        if not self.shuffle:
            return (place % size for place in places)
        generator = torch.Generator().manual_seed(self.seed + self.epoch)
        order = torch.randperm(size, generator=generator).numpy()  # a list of Python's numbers would be 8 times this
        return (int(order[place % size]) for place in places)

    def _places(self, first: int) -> range:
        """This rank's places in the epoch's order, which goes round where the ranks do not divide it evenly."""
        return range(self.rank, self.total_size, self.world_size)[first:]


@DATA_SAMPLERS.register_module()
class ShardSampler(ResumableSampler):
    """A shuffle of a `PseudoLabelDataset` that goes from shard to shard.

    Each epoch shuffles the shards, takes them window by window (as many whole shards as hold at most `buffer` images,
    at most as many as the dataset keeps open, at least one) and shuffles the images within each window. So every shard
    is opened once per epoch and process, is needed for as long as its window lasts, and may be read front to back
    into memory at its beginning (`ShardReader.read_ahead`). The order depends on seed and epoch alone; of N processes,
    each takes every N-th image of it.

    Memory: one number per shard, and one per image of a window.

    Args:
        dataset: with `shards.image_counts` and `max_open_shards`.
        buffer: images that are shuffled together.
        kwargs: those of MMEngine's `DefaultSampler`.
    """

    def __init__(self, dataset: Any, buffer: int = 10_000, **kwargs: Any) -> None:
        super().__init__(dataset, **kwargs)
        self.buffer = buffer

    def __iter__(self) -> Iterator[int]:
        if not self.shuffle:
            return super().__iter__()
        first, self.first = self.first, 0
        counts = self.dataset.shards.image_counts
        order = ShardOrder(counts, self.dataset.max_open_shards, self.buffer, (self.seed, self.epoch))
        return order.images(self._places(first))


class ShardOrder:
    """The order of one epoch.

    Args:
        counts: images in each shard.
        most_shards, buffer: bounds of a window.
        seed: any numbers.
    """

    def __init__(self, counts: Sequence[int], most_shards: int, buffer: int, seed: tuple[int, ...]) -> None:
        self.counts = np.asarray(counts, np.int64)
        self.seed = seed
        self.first_image = self.counts.cumsum() - self.counts
        self.shards = np.random.default_rng(seed).permutation(len(counts))
        self.windows: list[range] = []  # of places in `shards`
        begin = images = 0
        for place, count in enumerate(self.counts[self.shards].tolist()):
            if place > begin and (images + count > buffer or place - begin == most_shards):
                self.windows.append(range(begin, place))
                begin, images = place, 0
            images += count
        self.windows.append(range(begin, len(counts)))
        self.ends = self.counts[self.shards].cumsum()[[window.stop - 1 for window in self.windows]]

    def images(self, places: range) -> Iterator[int]:
        """The images at some rising places of the order, going round at its end; one window in memory at a time."""
        size, here = int(self.ends[-1]), range(0)
        for place in places:
            if place % size not in here:
                number = int(np.searchsorted(self.ends, place % size, side="right"))
                images = self.window(number)
                here = range(int(self.ends[number]) - len(images), int(self.ends[number]))
            yield int(images[place % size - here.start])

    def window(self, number: int) -> NDArray[np.int64]:
        """The images of a window, in order: int64 (n,)."""
        shards = self.shards[self.windows[number].start : self.windows[number].stop]
        images = [np.arange(self.counts[shard]) + self.first_image[shard] for shard in shards]
        return np.random.default_rng((*self.seed, number)).permutation(np.concatenate(images))
