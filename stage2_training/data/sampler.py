"""Samplers that can start in the middle of an epoch, for interrupted runs."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from mmengine.dataset import DefaultSampler
from mmengine.registry import DATA_SAMPLERS
from numpy.typing import NDArray


@DATA_SAMPLERS.register_module()
class ResumableSampler(DefaultSampler):
    """MMEngine's default sampler, with the same order, which can start in the middle of an epoch.

    The order depends on seed and epoch alone. During an epoch it takes 8 bytes of memory per sample of the epoch.

    Args:
        dataset: anything with a length.
        repeats: how often an epoch takes each sample, as MMEngine's `RepeatDataset` does. The dataset's config stays
            that of the dataset itself.
        kwargs: those of MMEngine's `DefaultSampler`.
    """

    first: int = 0

    def __init__(self, dataset: Any, repeats: int = 1, **kwargs: Any) -> None:
        super().__init__(range(len(dataset) * repeats), **kwargs)
        self.dataset, self.samples = dataset, len(dataset) * repeats

    def start_at(self, first: int) -> None:
        """Let the next pass skip the first samples of this rank; later passes are whole again."""
        self.first = first

    def __iter__(self) -> Iterator[int]:
        first, self.first = self.first, 0
        size, positions = len(self.dataset), self._positions(first)
        if not self.shuffle:
            return (position % self.samples % size for position in positions)
        generator = torch.Generator().manual_seed(self.seed + self.epoch)
        order = torch.randperm(self.samples, generator=generator).numpy()  # a list would take 8 times the memory
        return (int(order[position % self.samples]) % size for position in positions)

    def _positions(self, first: int) -> range:
        """This rank's positions in the epoch's order, which wraps around where the ranks do not divide it evenly."""
        return range(self.rank, self.total_size, self.world_size)[first:]


@DATA_SAMPLERS.register_module()
class ShardSampler(ResumableSampler):
    """Shuffles a `PseudoLabelDataset` window by window, so that few shards are open at a time.

    Each epoch shuffles the shards, divides them into windows and shuffles the images within each window. A window is as
    many whole shards as hold at most `buffer` images, at most as many as the dataset keeps open, and at least one. So
    every shard is opened once per epoch and process, is needed only during its window, and may be read front to back
    into memory when the window begins (`ShardReader.read_ahead`). The order depends on seed and epoch alone; each of N
    processes takes every N-th image of it.

    Memory: one number per shard, and one per image of a window.

    Args:
        dataset: has `shards.image_counts` and `max_open_shards`.
        buffer: how many images are shuffled together.
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
        return order.images(self._positions(first))


class ShardOrder:
    """The order of the images in one epoch.

    Args:
        counts: images in each shard.
        max_shards, buffer: limits of a window, in shards and in images.
        seed: any numbers.
    """

    def __init__(self, counts: Sequence[int], max_shards: int, buffer: int, seed: tuple[int, ...]) -> None:
        self.counts = np.asarray(counts, np.int64)
        self.seed = seed
        self.first_image = self.counts.cumsum() - self.counts
        self.shards = np.random.default_rng(seed).permutation(len(counts))
        self.windows: list[range] = []  # of positions in `shards`
        begin = images = 0
        for position, count in enumerate(self.counts[self.shards].tolist()):
            if position > begin and (images + count > buffer or position - begin == max_shards):
                self.windows.append(range(begin, position))
                begin, images = position, 0
            images += count
        self.windows.append(range(begin, len(counts)))
        self.ends = self.counts[self.shards].cumsum()[[window.stop - 1 for window in self.windows]]

    def images(self, positions: range) -> Iterator[int]:
        """The images at ascending positions of the order, wrapping around; keeps one window in memory at a time."""
        size, loaded = int(self.ends[-1]), range(0)
        for position in positions:
            if position % size not in loaded:
                number = int(np.searchsorted(self.ends, position % size, side="right"))
                images = self.window(number)
                loaded = range(int(self.ends[number]) - len(images), int(self.ends[number]))
            yield int(images[position % size - loaded.start])

    def window(self, number: int) -> NDArray[np.int64]:
        """The images of a window, in order: int64 (n,)."""
        shards = self.shards[self.windows[number].start : self.windows[number].stop]
        images = [np.arange(self.counts[shard]) + self.first_image[shard] for shard in shards]
        return np.random.default_rng((*self.seed, number)).permutation(np.concatenate(images))
