import pytest
from hypothesis import given
from hypothesis import strategies as st

from stage1_proposals.common.errors import UserError
from stage2_training.config.overrides import images_per_process, passes


@given(st.integers(1, 32), st.integers(1, 16), st.integers(1, 8), st.integers(1, 40))
def test_what_is_shared_is_the_total(processes, images, times, most):
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


def test_what_does_not_fit_is_named_with_what_would():
    message = r"--batch-size 5 does not divide the 48 images .* 2 processes .* 96; use one of 1, 2, 3, 4, 6, 8, 12, "
    with pytest.raises(UserError, match=message):
        passes(96, 5, 2)
    message = r"5 processes cannot share the total batch of 96 evenly; use 1, 2, 3, 4, .* --total-batch 95 or 100$"
    with pytest.raises(UserError, match=message):
        images_per_process(96, 5, 12)
    with pytest.raises(UserError, match=r"--total-batch 16$"):
        images_per_process(8, 16, 12)
