"""Which images of a shard set to label next: images that differ, each typical of many.

An image's descriptor is the mean of its proposals' unit seed features, weighted by their scores. Spherical k-means
divides the images into one cluster for each that is labelled or to be chosen. A cluster without a labelled image is
something new; of the largest of these clusters, the image nearest to the centre is chosen first. (While few images are
labelled, those in the middle of clusters are a better choice than those farthest from all others, which are outliers:
Hacohen et al., "Active Learning on a Budget", 2022.) With a detector, only the `NEAREST` images of each cluster are
candidates, and the one that the detector is least sure of is chosen. Near-duplicates come last.

Memory holds at most one descriptor for each image (4 D bytes), and one shard's features.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from stage1_proposals.analysis.clusters import SAMPLE_PER_CLASS, train_centroids
from stage1_proposals.analysis.duplicates import MARGIN, features_of, image_descriptors, similarity
from stage1_proposals.analysis.index import Vectors, sample_vectors
from stage1_proposals.common.errors import UserError
from stage1_proposals.shards import ShardSet

NEAREST = 10
STARTS = 8  # of k-means, of which few clusters need several
LEAST_SCORE = 0.1  # of an object that a detector is asked for


@dataclass(frozen=True)
class Candidates:
    """M images to choose from, in k clusters.

    Attributes:
        position: int64 (M,), their places in the shard set.
        cluster: int64 (M,), in [0, k).
        preference: float (M,); the images of a cluster are chosen in descending order of it.
        size, labelled: int64 (k,), how many images without and with labels each cluster has.
    """

    position: NDArray[np.int64]
    cluster: NDArray[np.int64]
    preference: NDArray[np.floating]
    size: NDArray[np.int64]
    labelled: NDArray[np.int64]

    def take(self, rows: Sequence[int] | NDArray[np.integer]) -> "Candidates":
        """Some of the images, in this order."""
        return replace(self, position=self.position[rows], cluster=self.cluster[rows], preference=self.preference[rows])

    def best(self, count: int) -> "Candidates":
        """The first `count`, in the order in which they are to be chosen.

        The next is always of the cluster with the fewest images that are labelled or chosen; of several such clusters,
        of the largest.
        """
        by_cluster = np.lexsort((-self.preference, self.cluster))
        cluster = self.cluster[by_cluster]
        covered = self.labelled[cluster] + np.arange(len(cluster)) - np.searchsorted(cluster, cluster)
        return self.take(by_cluster[np.lexsort((cluster, -self.size[cluster], covered))[:count]])


def find_candidates(
    shards: ShardSet, labelled: NDArray[np.bool_], count: int, progress: Callable[[int], None] = lambda _: None
) -> Candidates:
    """The images with proposals and without labels, those nearest to the centres of their clusters first.

    Args:
        labelled: which images are labelled, bool (N,).
        count: how many images are to be chosen.
        progress: called with numbers of shards read; every shard is read twice.

    Raises:
        UserError: there are fewer than `count`.
        ShardError: a shard is damaged.
    """
    proposals = [np.diff(reader.column("images/proposals_begin")) for reader in shards.readers()]
    clustered = np.concatenate([np.zeros(0, int), *proposals]) > 0
    total, known = int(clustered.sum()), int((clustered & labelled).sum())
    if total - known < count:
        empty = len(clustered) - total
        raise UserError(
            f"{shards.directory}: {total - known} images are left to choose {count} from; of its {len(clustered)}, "
            f"{labelled.sum()} are labelled"
            + (f" and {empty} have no proposals" if empty else "")
            + ("; choose fewer" if total > known else "; make shards of more images")
        )

    def descriptors() -> Iterator[Vectors]:
        first = 0
        for block in image_descriptors(shards, by_score=True):
            yield block[clustered[first : first + len(block)]]
            first += len(block)
            progress(1)

    clusters = count + known
    sample = sample_vectors(descriptors, total, SAMPLE_PER_CLASS * clusters, seed=0)
    centroids = train_centroids(sample, clusters, seed=0, starts=STARTS)
    nearest = [_nearest(block, centroids) for block in descriptors()]
    cluster, cosine = (np.concatenate(column) for column in zip(*nearest, strict=True))
    position = np.flatnonzero(clustered)
    is_known = labelled[position]
    return Candidates(
        position[~is_known],
        cluster[~is_known],
        cosine[~is_known],
        np.bincount(cluster[~is_known], minlength=clusters),
        np.bincount(cluster[is_known], minlength=clusters),
    )


def _nearest(vectors: Vectors, centroids: Vectors) -> tuple[NDArray[np.int64], Vectors]:
    """The nearest centroid to each vector, int64 (n,), and its cosine, float32 (n,)."""
    cosines = vectors @ centroids.T
    return cosines.argmax(axis=1), cosines.max(axis=1)


def first_different(
    shards: ShardSet, order: Sequence[int], labelled: Sequence[int], count: int, threshold: float
) -> tuple[list[int], list[int]]:
    """The first `count` images of this order, but those that are near-duplicates of labelled or earlier ones last.

    Args:
        order, labelled: positions in the set.
        threshold: similarity from which images are near-duplicates.

    Returns:
        Images that are no near-duplicates and, if they are fewer than `count`, the first of those that are.

    Raises:
        ShardError: a shard is damaged.
    """
    features = features_of(shards)
    known = [*labelled]
    descriptors = np.zeros((len(labelled) + count, shards.feature_dim), np.float32)
    for row, position in enumerate(labelled):
        descriptors[row] = _descriptor(features(position))
    different: list[int] = []
    similar: list[int] = []
    for position in order:
        descriptor = _descriptor(features(position))
        near = np.flatnonzero(descriptors[: len(known)] @ descriptor >= threshold - MARGIN)
        if any(similarity(features(position), features(known[row])) >= threshold for row in near):
            similar.append(position)
            continue
        descriptors[len(known)] = descriptor
        known.append(position)
        different.append(position)
        if len(different) == count:
            break
    return different, similar[: count - len(different)]


def _descriptor(features: Vectors) -> Vectors:
    """The unit mean of an image's unit features, float32 (D,); zeros if it has none."""
    total = features.sum(axis=0)
    return total / max(float(np.linalg.norm(total)), 1e-12)


def uncertainty(scores: Sequence[Sequence[float]]) -> NDArray[np.float64]:
    """How unsure a detector is of each of M images, given the scores of its objects: float64 (M,), in [0, 1].

    It is the mean of 4 s (1 - s), where s are an image's scores as fractions of the highest of all images; many
    detectors give none above one half. An image without objects has 0.
    """
    highest = max((score for one in scores for score in one), default=1.0)
    fractions = (np.array(one) / highest for one in scores)
    return np.array([np.mean(4 * s * (1 - s)) if len(s) else 0.0 for s in fractions])
