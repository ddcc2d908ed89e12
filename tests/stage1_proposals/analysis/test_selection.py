"""Which images to label next, on shard sets whose images are planted in clusters."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stage1_proposals.analysis.duplicates import image_descriptors
from stage1_proposals.analysis.selection import Candidates, find_candidates, first_different, uncertainty
from stage1_proposals.common.errors import UserError
from stage1_proposals.shards import ShardSet

DIM = 16
SIZES = (5, 9, 3, 7)  # images of the clusters that are planted
CLUSTER = np.repeat(range(len(SIZES)), SIZES)  # of each image
IMAGES = len(CLUSTER)


@pytest.fixture
def write(write_shards: Callable[..., ShardSet], make_record: Callable, rectangles: Callable) -> Callable:
    """(features of each image, images per shard, scores) -> a shard set."""

    def write(images: list[np.ndarray], per_shard: int = 7, scores: np.ndarray | None = None) -> ShardSet:
        records = []
        for image, features in enumerate(images):
            masks = rectangles([(m, 0, m + 4, 6) for m in range(len(features))], 24, 32)
            record = make_record(image, f"{image}.png", masks, features)
            records.append(record if scores is None else replace(record, score=scores))
        cut = [records[first : first + per_shard] for first in range(0, len(records), per_shard)]
        return write_shards(cut, {"feature_dim": DIM}, images=False)

    return write


def planted(noise: float = 0.5) -> list[np.ndarray]:
    """Images of three proposals, whose features lie around the axis of their cluster."""
    rng = np.random.default_rng(0)
    return [np.eye(DIM)[cluster] + noise * rng.standard_normal((3, DIM)) / 4 for cluster in CLUSTER]


def select(shards: ShardSet, count: int, labelled: tuple[int, ...] = (), threshold: float = 1.0) -> list[int]:
    is_labelled = np.isin(np.arange(shards.image_count), labelled)
    order = find_candidates(shards, is_labelled, count).best(shards.image_count).position.tolist()
    different, similar = first_different(shards, order, labelled, count, threshold)
    return different + similar


@pytest.mark.parametrize("per_shard", [4, 30])
def test_one_image_of_each_cluster_is_chosen_and_the_largest_first(write: Callable, per_shard: int) -> None:
    chosen = select(write(planted(), per_shard), len(SIZES))
    assert CLUSTER[chosen].tolist() == [1, 3, 0, 2]


def test_of_a_cluster_it_is_the_image_nearest_to_its_centre(write: Callable) -> None:
    shards = write(planted())
    vectors = np.concatenate(list(image_descriptors(shards)))
    for position in select(shards, len(SIZES)):
        members = np.flatnonzero(CLUSTER[position] == CLUSTER)
        assert position == members[np.argmax(vectors[members] @ vectors[members].sum(axis=0))]


def test_clusters_with_labels_are_left_for_later(write: Callable) -> None:
    shards = write(planted())
    labelled = tuple(int(np.flatnonzero(cluster == CLUSTER)[0]) for cluster in (1, 2))
    # One cluster for each labelled image, and one for each to choose: the planted ones.
    assert CLUSTER[select(shards, 2, labelled)].tolist() == [3, 0]


def test_labelled_images_are_never_chosen(write: Callable) -> None:
    labelled = tuple(range(0, IMAGES, 2))
    assert sorted(select(write(planted()), IMAGES - len(labelled), labelled)) == list(range(1, IMAGES, 2))


def test_near_duplicates_come_last(write: Callable) -> None:
    images = planted(noise=2)
    shards = write(images + images[:4])  # IMAGES + n is a copy of n
    chosen = select(shards, IMAGES, threshold=0.95)
    assert sorted(position % IMAGES for position in chosen) == list(range(IMAGES))
    everything = select(shards, IMAGES + 4, threshold=0.95)
    assert sorted(everything) == list(range(IMAGES + 4))
    assert sorted(position % IMAGES for position in everything[-4:]) == [0, 1, 2, 3]


def test_so_do_near_duplicates_of_labelled_images(write: Callable) -> None:
    images = planted(noise=2)
    chosen = select(write(images + images[:4]), IMAGES, labelled=(0, 1, 2, 3), threshold=0.95)
    assert set(chosen[: IMAGES - 4]) == set(range(4, IMAGES))


def test_the_same_images_are_chosen_again_and_from_other_shards(write: Callable) -> None:
    shards = write(planted(noise=2), 3)
    first = select(shards, 6)
    assert len(set(first)) == 6
    assert select(shards, 6) == first
    shards.directory.rename(shards.directory.with_name("former"))
    assert select(write(planted(noise=2), 20), 6) == first


def test_images_without_proposals_are_left_out_and_told_when_too_few_are_left(write: Callable) -> None:
    shards = write([*planted(), np.zeros((0, DIM)), np.zeros((0, DIM))])
    labelled = (0, 1, 2, IMAGES)
    assert sorted(select(shards, IMAGES - 3, labelled)) == list(range(3, IMAGES))
    message = f"{IMAGES - 3} images are left to choose {IMAGES} from; of its {IMAGES + 2}, 4 are labelled and 2 have no"
    with pytest.raises(UserError, match=message):
        select(shards, IMAGES, labelled)
    with pytest.raises(UserError, match=f"^{shards.directory}: 0 images are left .*; make shards of more images$"):
        select(shards, 1, range(IMAGES))


def test_proposals_count_by_their_scores(write: Callable) -> None:
    shards = write([np.eye(DIM)[:2]], scores=np.array([0.9, 0.3], np.float32))
    (vectors,) = image_descriptors(shards, by_score=True)
    assert vectors[0, :3] == pytest.approx([3 / 10**0.5, 1 / 10**0.5, 0], abs=1e-6)


@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 5)), min_size=1, max_size=20),
    st.lists(st.integers(0, 3), min_size=4, max_size=4),
    st.integers(1, 25),
)
@settings(deadline=None)
def test_the_next_is_always_of_the_cluster_that_is_covered_least(
    images: list[tuple[int, int]], labelled: list[int], count: int
) -> None:
    cluster, preference = np.array(images).T
    size = np.bincount(cluster, minlength=4)
    candidates = Candidates(np.arange(len(images)), cluster, preference.astype(float), size, np.array(labelled))
    expected: list[int] = []
    while len(expected) < min(count, len(images)):
        left = [image for image in range(len(images)) if image not in expected]
        taken = [labelled[c] + sum(cluster[image] == c for image in expected) for c in range(4)]
        expected.append(min(left, key=lambda n: (taken[cluster[n]], -size[cluster[n]], cluster[n], -preference[n], n)))
    assert candidates.best(count).position.tolist() == expected


@pytest.mark.parametrize("highest", [1.0, 0.3])
def test_uncertainty_is_highest_at_half_the_highest_score(highest: float) -> None:
    scores = [[1.0], [0.5, 0.5], [1.0, 0.5], [0.9], [0.2], []]
    found = uncertainty([[highest * score for score in one] for one in scores])
    assert found == pytest.approx([0, 1, 0.5, 0.36, 0.64, 0])
    assert uncertainty([[], []]).tolist() == [0, 0]
