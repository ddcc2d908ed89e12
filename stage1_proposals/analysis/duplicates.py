"""Near-duplicate images, found by their proposals: the same picture at another size, quality, brightness or crop.

This takes two steps. An image's *descriptor* is the mean of its proposals' unit seed features; the images with the
nearest descriptors in a `VectorIndex` are its candidates. Images of similar things have similar descriptors, too, so
the *similarity* of a pair is then measured proposal by proposal: the mean cosine of each proposal with its best match
in the other image. Memory holds the index of N descriptors, one shard's features, and up to `CANDIDATES` pairs per
image.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import lru_cache

import faiss
import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array, csr_array
from scipy.sparse.csgraph import connected_components

from stage1_proposals.analysis.index import VectorIndex, Vectors, unit_features
from stage1_proposals.shards import ShardReader, ShardSet

# Chains of pairs join many copies, so a few neighbours suffice, also for an image of which there are a thousand copies.
CANDIDATES = 10
# In all sets examined, the cosine of two descriptors was at least the similarity; the margin allows for rounding.
MARGIN = 0.02
# Limits on open shards and on images in memory while pairs are measured.
OPEN_SHARDS, IMAGES_HELD = 64, 1000


@dataclass(frozen=True)
class Pair:
    """Two images by their positions in the set, `first` < `second`, and their similarity, 1 for copies."""

    first: int
    second: int
    similarity: float


def image_descriptors(shards: ShardSet, by_score: bool = False) -> Iterator[Vectors]:
    """Each shard's image descriptors, float32 (n, D), of length 1; zeros for images without proposals.

    Args:
        by_score: the mean is weighted by the proposals' scores.
    """
    for reader in shards.readers():
        features, begin = unit_features(reader), reader.column("images/proposals_begin")
        weights = reader.column("proposals/score") if by_score else np.ones(len(features), np.float32)
        sums = csr_array(
            (weights, np.arange(len(features)), begin),
            shape=(len(begin) - 1, len(features)),
        )
        descriptors = np.ascontiguousarray(sums @ features)
        faiss.normalize_L2(descriptors)
        yield descriptors


def candidate_pairs(
    shards: ShardSet, threshold: float, progress: Callable[[int], None] = lambda _: None
) -> NDArray[np.int64]:
    """Pairs of images that may reach a similarity of `threshold`: positions in the set, int64 (M, 2), sorted.

    Args:
        threshold: least similarity, larger than `MARGIN`.
        progress: called with numbers of shards read; every shard is read twice or, in a large set, three times.

    Raises:
        ShardError: a shard is damaged.
    """

    def descriptors() -> Iterator[Vectors]:
        for block in image_descriptors(shards):
            yield block
            progress(1)

    index = VectorIndex(descriptors, shards.image_count, shards.feature_dim)
    parts = [np.zeros((0, 2), np.int64)]
    first = 0
    for block in descriptors():
        cosines, neighbours = index.search(block, CANDIDATES + 1)  # one more, because an image finds itself
        image = np.broadcast_to(np.arange(first, first + len(block))[:, None], neighbours.shape)
        is_near = (cosines >= threshold - MARGIN) & (neighbours >= 0) & (neighbours != image)
        parts.append(np.sort(np.stack([image[is_near], neighbours[is_near]], axis=1), axis=1))
        first += len(block)
    return np.unique(np.concatenate(parts), axis=0)


def similarity(one: Vectors, other: Vectors) -> float:
    """The similarity of two images, given their proposals' unit features, (L, D) and (M, D): 1 for copies.

    The mean cosine of the proposals of each image with their best match in the other, averaged over the two images and
    rounded to four digits.
    """
    cosines = one @ other.T
    return round(float(cosines.max(axis=1).mean() + cosines.max(axis=0).mean()) / 2, 4)


def features_of(shards: ShardSet) -> Callable[[int], Vectors]:
    """How to read the unit features of an image's proposals, float32 (L, D), by its position in the set.

    Those of the last images are kept; reading raises a ShardError if a shard is damaged.
    """

    @lru_cache(OPEN_SHARDS)
    def reader(shard: int) -> ShardReader:
        return shards.reader(shard)

    @lru_cache(IMAGES_HELD)
    def features(position: int) -> Vectors:
        shard, row = shards.locate(position)
        vectors = reader(shard).read(row).feature.astype(np.float32)
        faiss.normalize_L2(vectors)
        return vectors

    return features


def measure(shards: ShardSet, pairs: Iterable[tuple[int, int]]) -> Iterator[Pair]:
    """The similarity of each pair of images, given as positions in the set.

    Raises:
        ShardError: a shard is damaged.
    """
    features = features_of(shards)
    for first, second in pairs:
        yield Pair(int(first), int(second), similarity(features(first), features(second)))


def groups(pairs: Iterable[Pair]) -> list[list[int]]:
    """Groups of images that pairs connect, directly or through others: sorted positions, sorted by their first."""
    ends = np.array([(pair.first, pair.second) for pair in pairs], np.int64).reshape(-1, 2)
    images, nodes = np.unique(ends, return_inverse=True)
    first, second = nodes.reshape(-1, 2).T
    graph = coo_array((np.ones(len(first)), (first, second)), shape=(len(images), len(images)))
    _, labels = connected_components(graph, directed=False)
    cuts = np.cumsum(np.bincount(labels))[:-1]
    return sorted(part.tolist() for part in np.split(images[np.argsort(labels, kind="stable")], cuts) if len(part))


def file_names(shards: ShardSet, pairs: Iterable[Pair]) -> dict[int, str]:
    """The file names of the images in these pairs, by their positions in the set."""
    names = {}
    for position in sorted({end for pair in pairs for end in (pair.first, pair.second)}):
        shard, row = shards.locate(position)
        with closing(shards.reader(shard)) as reader:
            names[position] = reader.read(row).file_name
    return names


def count_empty(shards: ShardSet) -> int:
    """The number of images without proposals, which are near-duplicates of none."""
    return sum(int((np.diff(reader.column("images/proposals_begin")) == 0).sum()) for reader in shards.readers())
