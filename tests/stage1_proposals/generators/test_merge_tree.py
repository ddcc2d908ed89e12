"""The merge tree is the plain loop's, on grids of any shape."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from stage1_proposals.generators.merge_tree import MergeTree, build_merge_tree
from tests.reference.plain_merging import are_neighbours, plain_merges


def unit_vectors(seed: int, cells: int, dimensions: int = 6) -> NDArray[np.float32]:
    vectors = np.random.default_rng(seed).normal(size=(cells, dimensions))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def cells_of(tree: MergeTree, node: int) -> frozenset[int]:
    return frozenset(tree.cells(node).tolist())


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 10_000), rows=st.integers(1, 5), columns=st.integers(1, 5))
def test_the_same_regions_merge_in_the_same_order(seed: int, rows: int, columns: int) -> None:
    vectors = unit_vectors(seed, rows * columns)
    tree, expected = build_merge_tree(vectors, columns), plain_merges(vectors.astype(float), columns)
    assert len(tree.likeness) == len(expected) + rows * columns
    for node, (likeness, a, b) in enumerate(expected, rows * columns):
        assert tree.likeness[node] == pytest.approx(likeness, abs=1e-5)
        assert cells_of(tree, node) == a | b


def test_nodes_are_nested_or_disjoint() -> None:
    tree = build_merge_tree(unit_vectors(0, 48), 8)
    assert sorted(tree.order) == list(range(48))
    regions = [cells_of(tree, node) for node in range(95)]
    assert regions[:48] == [{cell} for cell in range(48)]
    assert regions[-1] == set(range(48))
    assert tree.area.tolist() == [len(region) for region in regions]
    for one in regions:
        for other in regions:
            assert one <= other or other <= one or not one & other


def test_sums_are_over_the_cells_of_a_node_and_beside_it() -> None:
    vectors = unit_vectors(2, 42)
    tree, nodes = build_merge_tree(vectors, 7), np.array([3, 45, 60, 82])
    sums, rings = tree.sums(vectors, nodes), tree.ring_sums(vectors, 7, nodes)
    for node, inside, around in zip(nodes.tolist(), sums, rings, strict=True):
        region = cells_of(tree, node)
        beside = [c for c in range(42) if c not in region and are_neighbours(frozenset([c]), region, 7)]
        assert inside == pytest.approx(vectors[sorted(region)].sum(0), abs=1e-5)
        assert around == pytest.approx(vectors[beside].sum(0), abs=1e-5)
    assert (rings[-1] == 0).all()  # of the whole image


def test_equal_cells_merge_in_the_same_way_each_time() -> None:
    tree = build_merge_tree(np.tile(np.float32([0.6, 0.8]), (6, 1)), 3)
    assert tree.likeness == pytest.approx(1)
    again = build_merge_tree(np.tile(np.float32([0.6, 0.8]), (6, 1)), 3)
    assert (tree.order == again.order).all()
    assert (tree.first == again.first).all()


def test_cells_without_features_merge_last() -> None:
    vectors = unit_vectors(1, 12)
    vectors[5] = 0
    tree = build_merge_tree(vectors, 4)
    assert np.isfinite(tree.likeness).all()
    made = min(node for node in range(12, 23) if 5 in cells_of(tree, node))
    assert tree.likeness[made] == 0
