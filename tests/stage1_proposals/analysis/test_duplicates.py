"""Near-duplicates, against every pair of images measured in the plain way."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stage1_proposals.analysis.duplicates import Pair, candidate_pairs, groups, image_descriptors, measure, similarity
from stage1_proposals.shards import ImageRecord, ShardSet

DIM = 16


@pytest.fixture
def write(write_shards: Callable[..., ShardSet], make_record: Callable, rectangles: Callable) -> Callable:
    """(features of each image, images per shard) -> a shard set."""

    def record(image: int, features: np.ndarray) -> ImageRecord:
        masks = rectangles([(m, 0, m + 4, 6) for m in range(len(features))], 24, 32)
        return make_record(image, f"{image}.png", masks, features)

    def write(images: list[np.ndarray], per_shard: int) -> ShardSet:
        records = [record(image, features) for image, features in enumerate(images)]
        cut = [records[first : first + per_shard] for first in range(0, len(records), per_shard)]
        return write_shards(cut, {"feature_dim": DIM}, images=False)

    return write


def some_images() -> list[np.ndarray]:
    """Images 0-5 are each other's only company: 6 is 0 again, 7 is 1 nearly, 8 half of 2, 9 and 10 have nothing."""
    rng = np.random.default_rng(0)
    images = [rng.standard_normal((count, DIM)) for count in (3, 4, 6, 1, 2, 5)]
    images += [images[0][::-1] * 2, images[1] + 0.2 * rng.standard_normal((4, DIM)), images[2][:3]]
    return [*images, np.zeros((0, DIM)), np.zeros((0, DIM))]


def plain_similarity(one: np.ndarray, other: np.ndarray) -> float:
    def cosine(a: np.ndarray, b: np.ndarray) -> float:
        return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))

    there = [max(cosine(a, b) for b in other) for a in one]
    back = [max(cosine(a, b) for a in one) for b in other]
    return (sum(there) / len(there) + sum(back) / len(back)) / 2


def found(shards: ShardSet, threshold: float) -> dict[tuple[int, int], float]:
    pairs = measure(shards, candidate_pairs(shards, threshold).tolist())
    return {(pair.first, pair.second): pair.similarity for pair in pairs if pair.similarity >= threshold}


@pytest.mark.parametrize("threshold", [0.6, 0.9, 1.0])
@pytest.mark.parametrize("per_shard", [3, 11])
def test_pairs_are_those_that_comparing_every_two_images_finds(
    write: Callable[..., ShardSet], threshold: float, per_shard: int
) -> None:
    images = [features.astype(np.float16).astype(np.float64) for features in some_images()]
    expected = {}
    for second in range(9):
        for first in range(second):
            alike = plain_similarity(images[first], images[second])
            if alike >= threshold - 1e-4:
                expected[first, second] = alike
    assert (0, 6) in expected
    pairs = found(write(some_images(), per_shard), threshold)
    assert list(pairs) == sorted(expected)
    assert pairs == pytest.approx(expected, abs=1e-4)
    assert pairs[0, 6] == 1.0


def test_descriptors_are_mean_directions_and_zero_without_proposals(write: Callable[..., ShardSet]) -> None:
    images = some_images()
    found = np.concatenate(list(image_descriptors(write(images, 4))))
    for descriptor, features in zip(found, images, strict=True):
        mean = np.zeros(DIM)
        for feature in features.astype(np.float16).astype(np.float64):
            mean += feature / np.linalg.norm(feature)
        assert np.abs(descriptor - mean / max(np.linalg.norm(mean), 1e-30)).max() < 1e-5


def test_an_image_there_forty_times_is_one_group(write: Callable[..., ShardSet]) -> None:
    images = some_images()[:5]
    pairs = found(write([images[0]] * 20 + images[1:] + [images[0]] * 20, 7), 1.0)
    assert groups(Pair(*ends, 1.0) for ends in pairs) == [[*range(20), *range(24, 44)]]


@pytest.mark.parametrize("images", [[], [np.zeros((0, DIM))] * 3, [np.ones((1, DIM))]])
def test_there_may_be_nothing_to_compare(write: Callable[..., ShardSet], images: list[np.ndarray]) -> None:
    assert found(write(images, 2), 0.5) == {}


def test_every_shard_read_is_reported(write: Callable[..., ShardSet]) -> None:
    read: list[int] = []
    candidate_pairs(write(some_images(), 3), 0.8, read.append)
    assert sum(read) == 2 * 4


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 1000), counts=st.tuples(st.integers(1, 5), st.integers(1, 5)))
def test_similarity_is_the_same_both_ways_and_1_with_itself(seed: int, counts: tuple[int, int]) -> None:
    rng = np.random.default_rng(seed)
    one, other = (rng.standard_normal((count, DIM)).astype(np.float32) for count in counts)
    one, other = (each / np.linalg.norm(each, axis=1, keepdims=True) for each in (one, other))
    assert similarity(one, one) == similarity(one, one[::-1]) == 1.0
    assert similarity(one, other) == similarity(other, one) == pytest.approx(plain_similarity(one, other), abs=1e-4)


@given(st.lists(st.tuples(st.integers(0, 12), st.integers(0, 12)).filter(lambda ends: ends[0] != ends[1]), max_size=12))
def test_groups_are_what_joining_sets_gives(ends: list[tuple[int, int]]) -> None:
    sets: list[set[int]] = []
    for pair in ends:
        joined = set(pair).union(*(each for each in sets if each & set(pair)))
        sets = [each for each in sets if not each & joined] + [joined]
    assert groups(Pair(min(pair), max(pair), 1.0) for pair in ends) == sorted(sorted(each) for each in sets)
