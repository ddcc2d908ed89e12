import pytest
import torch

from stage2_training.knet.assignment import Assignment, mean_pairs


@pytest.mark.parametrize(("pairs", "mean"), [(0, 1.0), (1, 1.0), (7, 7.0)])
def test_pairs_are_counted_as_one_at_least(pairs: int, mean: float) -> None:
    assignment = Assignment(*torch.zeros(3, pairs, dtype=torch.long))
    assert len(assignment) == pairs
    torch.testing.assert_close(mean_pairs(assignment), torch.tensor(mean))
