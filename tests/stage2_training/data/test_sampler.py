import tracemalloc
from types import SimpleNamespace
from unittest import mock

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from mmengine.dataset import DefaultSampler

from stage2_training.data import ResumableSampler, ShardSampler


@settings(deadline=None, max_examples=50)
@given(size=st.integers(1, 40), epoch=st.integers(0, 5), first=st.integers(0, 45))
def test_starts_an_epoch_in_the_middle_and_then_goes_on_whole(size, epoch, first):
    sampler = ResumableSampler(list(range(size)), seed=3)
    sampler.set_epoch(epoch)
    whole = list(sampler)
    assert sorted(whole) == list(range(size))
    sampler.start_at(first)
    assert list(sampler) == whole[first:]
    assert list(sampler) == whole
    assert len(sampler) == size


@settings(deadline=None, max_examples=50)
@given(
    size=st.integers(1, 40), epoch=st.integers(0, 5), world=st.integers(1, 5), shuffle=st.booleans(), even=st.booleans()
)
def test_the_order_is_that_of_mmengines_sampler(size, epoch, world, shuffle, even):
    for rank in range(world):
        orders = []
        for kind in (ResumableSampler, DefaultSampler):
            sampler = kind(range(size), shuffle=shuffle, seed=3, round_up=even)
            sampler.rank, sampler.world_size = rank, world
            sampler.total_size = -(-size // world) * world if even else size
            sampler.set_epoch(epoch)
            orders.append(list(sampler))
        assert orders[0] == orders[1]


@settings(deadline=None, max_examples=50)
@given(
    size=st.integers(1, 20),
    repeats=st.integers(1, 8),
    world=st.integers(1, 4),
    shuffle=st.booleans(),
    epoch=st.integers(0, 3),
)
def test_an_epoch_repeats_each_sample_as_a_repeated_dataset_does(size, repeats, world, shuffle, epoch):
    orders = []
    for rank in range(world):
        with mock.patch("mmengine.dataset.sampler.get_dist_info", return_value=(rank, world)):
            mine = ResumableSampler(range(size), repeats=repeats, shuffle=shuffle, seed=3)
            repeated = DefaultSampler(range(size * repeats), shuffle=shuffle, seed=3)
        for sampler in (mine, repeated):
            sampler.set_epoch(2)
        orders.append(list(mine))
        assert orders[-1] == [index % size for index in repeated]
        assert len(mine) == len(orders[-1])
    if world == 1:
        assert sorted(orders[0]) == sorted([*range(size)] * repeats)


def peak_memory(sampler: ResumableSampler) -> int:
    def once() -> int:
        tracemalloc.start()
        next(iter(sampler))
        used = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return used

    return min(once() for _ in range(5))  # other threads of the test process allocate, too, now and then


def test_an_epoch_makes_no_python_object_per_sample():
    assert peak_memory(ResumableSampler(range(100_000), seed=3)) < 100_000


class Shards:
    """A dataset that knows its shards and nothing else."""

    def __init__(self, counts: list[int], most: int) -> None:
        self.shards = SimpleNamespace(image_counts=counts)
        self.max_open_shards = most

    def __len__(self) -> int:
        return sum(self.shards.image_counts)


def sampler(dataset: Shards, buffer: int, rank: int = 0, world: int = 1, epoch: int = 0, **kwargs) -> ShardSampler:
    found = ShardSampler(dataset, buffer=buffer, seed=3, **kwargs)
    found.rank, found.world_size = rank, world
    found.total_size = -(-len(dataset) // world) * world if found.round_up else len(dataset)
    found.set_epoch(epoch)
    return found


COUNTS = st.lists(st.integers(0, 12), min_size=1, max_size=12).filter(any)
ORDER = {"counts": COUNTS, "most": st.integers(1, 5), "buffer": st.integers(1, 40), "epoch": st.integers(0, 3)}


@settings(deadline=None, max_examples=100)
@given(**ORDER, world=st.integers(1, 5), even=st.booleans())
def test_shards_are_dealt_to_the_ranks_in_turn_from_one_order_of_every_image_once(
    counts, most, buffer, epoch, world, even
):
    dataset = Shards(counts, most)
    order = list(sampler(dataset, buffer, epoch=epoch))
    assert sorted(order) == list(range(len(dataset)))
    padded = np.resize(order, -(-len(dataset) // world) * world if even else len(dataset)).tolist()
    ranks = [list(sampler(dataset, buffer, rank, world, epoch, round_up=even)) for rank in range(world)]
    assert ranks == [padded[rank::world] for rank in range(world)]
    if even:
        assert len({len(rank) for rank in ranks}) == 1
        assert set().union(*ranks) == set(range(len(dataset)))


@settings(deadline=None, max_examples=100)
@given(**ORDER, world=st.integers(1, 3), first=st.integers(0, 60))
def test_an_epoch_over_shards_begun_in_the_middle_is_the_tail_of_the_whole(counts, most, buffer, epoch, world, first):
    for rank in range(world):
        found = sampler(Shards(counts, most), buffer, rank, world, epoch)
        whole = list(found)
        found.start_at(first)
        assert list(found) == whole[first:]
        assert list(found) == whole


@settings(deadline=None, max_examples=100)
@given(**ORDER, world=st.integers(1, 3))
def test_each_shard_is_in_use_for_one_stretch_and_few_at_a_time(counts, most, buffer, epoch, world):
    shard_of = np.repeat(np.arange(len(counts)), counts)
    for rank in range(world):
        owners = shard_of[list(sampler(Shards(counts, most), buffer, rank, world, epoch, round_up=False))].tolist()
        stretch = {shard: range(owners.index(shard), len(owners) - owners[::-1].index(shard)) for shard in set(owners)}
        for shard, places in stretch.items():
            assert len(places) <= max(buffer, counts[shard])
            assert sum(1 for other in stretch.values() if places[0] in other) <= most
        # A process that closes the shard unused longest, when it needs another, opens each once.
        opened: list[int] = []
        held: list[int] = []
        for shard in owners:
            if shard in held:
                held.remove(shard)
            else:
                opened.append(shard)
            held = [*held, shard][-most:]
        assert len(opened) == len(set(opened))


def test_another_epoch_or_seed_is_another_order_and_the_same_is_the_same():
    dataset = Shards([30] * 8, 3)
    orders = [tuple(sampler(dataset, 60, epoch=epoch)) for epoch in (0, 1, 2)]
    other_seed = ShardSampler(dataset, buffer=60, seed=4)
    orders.append(tuple(other_seed))
    assert len(set(orders)) == 4
    first_shards = [order[0] // 30 for order in orders]
    assert len(set(first_shards)) > 1
    assert tuple(sampler(dataset, 60, epoch=1)) == orders[1]


def test_images_of_a_window_are_mixed_and_those_of_other_windows_not():
    order = np.array(list(sampler(Shards([100] * 6, 4), 200)))
    for window in order.reshape(3, 200):
        shards = window // 100
        assert len(set(shards)) == 2
        assert 70 < np.count_nonzero(np.diff(shards)) < 130  # of 199 neighbours, half
        assert abs(np.corrcoef(window % 100, np.arange(200))[0, 1]) < 0.3


def test_without_shuffling_images_stand_in_the_order_of_the_shards():
    assert list(sampler(Shards([3, 0, 4], 2), 5, rank=1, world=2, shuffle=False)) == [1, 3, 5, 0]


def test_an_epoch_over_shards_takes_memory_for_a_window_and_a_little_per_shard():
    dataset = Shards([1000] * 10_000, 64)
    assert peak_memory(ShardSampler(dataset, buffer=10_000, seed=3)) < 2_000_000  # all images would take 80
