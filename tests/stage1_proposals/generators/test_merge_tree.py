"""The merge tree is the plain loop's, on grids of any shape."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from stage1_proposals.generators.merge_tree import MergeTree, build_merge_tree
from tests.reference.plain_merging import plain_merges


def unit_vectors(seed: int, cells: int, dimensions: int = 6) -> NDArray[np.float32]:
    vectors = np.random.default_rng(seed).normal(size=(cells, dimensions))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def cells_of(tree: MergeTree, node: int) -> frozenset[int]:
    return frozenset(tree.order[tree.first[node] : tree.end[node]].tolist())


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 10_000), rows=st.integers(1, 5), columns=st.integers(1, 5))
def test_the_same_regions_merge_in_the_same_order(seed: int, rows: int, columns: int) -> None:
    vectors = unit_vectors(seed, rows * columns)
    tree, expected = build_merge_tree(vectors, columns), plain_merges(vectors.astype(float), columns)
    assert len(tree.likeness) == len(expected) + rows * columns
    for node, (likeness, a, b) in enumerate(expected, rows * columns):
        assert tree.likeness[node] == pytest.approx(likeness, abs=1e-5)
        assert {cells_of(tree, child) for child in np.flatnonzero(tree.parent == node)} == {a, b}
        assert cells_of(tree, node) == a | b


def test_nodes_are_nested_and_last_from_their_merge_to_the_next() -> None:
    tree = build_merge_tree(unit_vectors(0, 48), 8)
    assert sorted(tree.order) == list(range(48))
    assert [cells_of(tree, cell) for cell in range(48)] == [{cell} for cell in range(48)]
    assert tree.area[-1] == 48
    assert tree.parent[-1] == -1
    assert tree.persistence[-1] == 0
    for node, parent in enumerate(tree.parent[:-1]):
        assert cells_of(tree, node) < cells_of(tree, parent)
        assert tree.persistence[node] == tree.likeness[node] - tree.likeness[parent]


def test_equal_cells_merge_in_the_order_of_their_numbers() -> None:
    tree = build_merge_tree(np.tile(np.float32([0.6, 0.8]), (6, 1)), 3)
    assert tree.likeness == pytest.approx(1)
    again = build_merge_tree(np.tile(np.float32([0.6, 0.8]), (6, 1)), 3)
    assert (tree.order == again.order).all()
    assert (tree.parent == again.parent).all()


def test_cells_without_features_merge_last() -> None:
    vectors = unit_vectors(1, 12)
    vectors[5] = 0
    tree = build_merge_tree(vectors, 4)
    assert np.isfinite(tree.likeness).all()
    assert tree.likeness[tree.parent[5]] == 0
