"""Search among seed features, against every cosine computed in the plain way."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stage1_proposals.analysis.index import VectorIndex, sample_vectors, similar_proposals, unit_features
from stage1_proposals.common.errors import UserError
from stage1_proposals.shards import ShardError, ShardReader, ShardSet


def unit(count: int, dim: int, seed: int = 0) -> np.ndarray:
    vectors = np.random.default_rng(seed).standard_normal((count, dim)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def in_blocks(vectors: np.ndarray, size: int) -> Callable[[], Iterator[np.ndarray]]:
    return lambda: (vectors[first : first + size] for first in range(0, len(vectors), size))


@pytest.fixture
def shards(write_shards: Callable[..., ShardSet], make_record: Callable, rectangles: Callable) -> ShardSet:
    """Three shards of 3, 0 and 2 images with 0 to 4 proposals; two features are equal, one is zero, none is unit."""
    rng = np.random.default_rng(0)
    records = []
    for image, count in enumerate((2, 0, 4, 3, 1)):
        masks = rectangles([(2 * m, image, 2 * m + 9, image + 8) for m in range(count)], 24, 32)
        features = 3 * rng.standard_normal((count, 4))
        if image == 3:
            features[0], features[1] = records[0].feature[1], 0
        records.append(make_record(100 + image, f"{image}.png", masks, features))
    return write_shards([records[:3], [], records[3:]], images=False)


def test_features_have_length_1_or_0(shards: ShardSet) -> None:
    for path in shards.shard_paths:
        reader = ShardReader(path)
        stored, features = reader.column("proposals/feature").astype(np.float64), unit_features(reader)
        assert features.dtype == np.float32
        expected = stored / np.maximum(np.linalg.norm(stored, axis=1, keepdims=True), 1e-30)
        assert np.abs(features - expected).max(initial=0) < 1e-6


def every_cosine(shards: ShardSet, image_id: int, row: int) -> list[tuple[float, int, int]]:
    """(cosine, image id, row) of every other proposal, nearest first, by a loop over all."""
    records = [reader.read(i) for reader in map(ShardReader, shards.shard_paths) for i in range(len(reader))]
    vectors = {(r.image_id, n): f.astype(np.float64) for r in records for n, f in enumerate(r.feature)}
    query = vectors.pop((image_id, row))
    found = []
    for (other, n), vector in vectors.items():
        norm = np.linalg.norm(query) * np.linalg.norm(vector)
        found.append((float(query @ vector / norm) if norm else 0.0, other, n))
    return sorted(found, key=lambda each: -each[0])


@pytest.mark.parametrize("query", [(100, 0), (100, 1), (102, 3), (103, 0), (104, 0)])
@pytest.mark.parametrize("count", [0, 3, 100])
def test_similar_proposals_are_the_nearest_of_all(shards: ShardSet, query: tuple[int, int], count: int) -> None:
    place, nearest = similar_proposals(shards, *query, count)
    assert (id_of(shards, place), place.row) == query
    expected = every_cosine(shards, *query)[:count]
    assert [near.cosine for near in nearest] == pytest.approx([cosine for cosine, *_ in expected], abs=1e-6)
    assert [(id_of(shards, near), near.row) for near in nearest] == [(image, row) for _, image, row in expected]


def id_of(shards: ShardSet, place: object) -> int:
    return ShardReader(shards.shard_paths[place.shard]).read(place.image).image_id  # type: ignore[attr-defined]


def test_no_such_proposal_is_the_users_error(shards: ShardSet) -> None:
    with pytest.raises(UserError, match=r"has no image with id 5; /images/id of the shards lists them"):
        similar_proposals(shards, 5, 0, 3)
    with pytest.raises(UserError, match=r"image 100 \(0\.png\) has 2 proposals, none is number 2"):
        similar_proposals(shards, 100, 2, 3)
    with pytest.raises(UserError, match=r"image 101 \(1\.png\) has 0 proposals"):
        similar_proposals(shards, 101, 0, 3)


def test_a_damaged_shard_is_a_shard_error(shards: ShardSet, damage_column: Callable[[Path, str], None]) -> None:
    path = shards.shard_paths[2]
    damage_column(path, "proposals/feature")
    with pytest.raises(ShardError, match=r"shard-00002-of-00003\.h5: proposals/feature is damaged"):
        similar_proposals(shards, 100, 0, 3)


@settings(deadline=None, max_examples=50)
@given(total=st.integers(1, 40), size=st.integers(1, 50), block=st.integers(1, 15), seed=st.integers(0, 9))
def test_a_sample_is_rows_of_the_source_each_once_whatever_the_blocks(
    total: int, size: int, block: int, seed: int
) -> None:
    vectors = np.arange(total, dtype=np.float32)[:, None]
    sample = sample_vectors(in_blocks(vectors, block), total, size, seed)[:, 0]
    assert len(sample) == min(total, size)
    assert (np.diff(sample) > 0).all()
    assert np.array_equal(sample, sample_vectors(in_blocks(vectors, 40), total, size, seed)[:, 0])


def test_a_flat_index_finds_the_nearest_in_any_number_of_queries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stage1_proposals.analysis.index.QUERY_BATCH", 7)
    vectors, queries = unit(60, 8), unit(20, 8, seed=1)
    index = VectorIndex(in_blocks(vectors, 25), 60, 8)
    cosines, found = index.search(queries, 5)
    order = np.argsort(-(queries @ vectors.T), axis=1)[:, :5]
    assert np.array_equal(found, order)
    assert np.allclose(cosines, np.take_along_axis(queries @ vectors.T, order, axis=1), atol=1e-6)
    assert index.search(queries[:0], 5)[1].shape == (0, 5)


def test_where_there_are_fewer_vectors_positions_are_minus_1() -> None:
    _, found = VectorIndex(in_blocks(unit(2, 8), 9), 2, 8).search(unit(1, 8), 4)
    assert sorted(found[0].tolist()) == [-1, -1, 0, 1]


def test_inverted_lists_find_nearly_what_a_flat_index_finds() -> None:
    """Of 3,000 vectors in 100 clouds, the nearest of each is found as good as always, and twice the same."""
    rng = np.random.default_rng(0)
    vectors = np.repeat(unit(100, 16), 30, axis=0) + 0.1 * rng.standard_normal((3000, 16)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    source = in_blocks(vectors, 700)
    flat = VectorIndex(source, 3000, 16)
    lists, again = (VectorIndex(source, 3000, 16, flat_below=1000) for _ in range(2))
    assert type(lists.index).__name__ != type(flat.index).__name__
    cosines, found = lists.search(vectors, 2)
    exact_cosines, exact = flat.search(vectors, 2)
    assert (found == exact).mean() > 0.98
    assert np.abs(cosines - exact_cosines)[found == exact].max() < 2e-3
    assert np.array_equal(again.search(vectors, 2)[1], found)
