"""Connected parts are those that scipy labels."""

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from stage1_proposals.generators.connected import part_with


@settings(deadline=None, max_examples=50)
@given(
    seed=st.integers(0, 10_000), rows=st.integers(1, 9), columns=st.integers(1, 9), density=st.sampled_from([0.3, 0.6])
)
def test_a_part_is_that_with_the_cells_label(seed: int, rows: int, columns: int, density: float) -> None:
    random = np.random.default_rng(seed)
    masks = random.random((2, 3, rows, columns)) < density
    cells = random.integers(0, rows * columns, (2, 3))
    parts = part_with(torch.from_numpy(masks), torch.from_numpy(cells)).numpy()
    assert parts.shape == masks.shape
    for mask, cell, part in zip(
        masks.reshape(6, rows, columns), cells.ravel(), parts.reshape(6, rows, columns), strict=True
    ):
        labels, _ = ndimage.label(mask)
        label = labels.flat[cell]
        assert (part == ((labels == label) & mask)).all()
        assert part.any() == mask.flat[cell]
