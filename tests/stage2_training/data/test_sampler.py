from hypothesis import given, settings
from hypothesis import strategies as st

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
