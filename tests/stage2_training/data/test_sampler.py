import tracemalloc

from hypothesis import given, settings
from hypothesis import strategies as st
from mmengine.dataset import DefaultSampler

from stage2_training.data import ResumableSampler


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


def test_an_epoch_makes_no_python_object_per_sample():
    def peak() -> int:
        sampler = ResumableSampler(range(100_000), seed=3)
        tracemalloc.start()
        next(iter(sampler))
        used = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return used

    assert min(peak() for _ in range(5)) < 100_000  # other threads of the test process allocate, too, now and then
