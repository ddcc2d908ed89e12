"""Spherical k-means on the seed features of a shard set: a pseudo class for each proposal.

The centroids are computed from a sample and written beside the shards; then every shard gets its cluster column. When
the work is interrupted and run again, it continues with the same centroids, and shards that have their column stay as
they are. Memory holds the sample (4 D bytes for each of `SAMPLE_PER_CLASS` proposals per class), later one shard.
"""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import replace

import faiss
import numpy as np
from numpy.typing import NDArray

from stage1_proposals.analysis.index import Vectors, sample_vectors, unit_features
from stage1_proposals.common.errors import UserError
from stage1_proposals.common.files import writing
from stage1_proposals.jobs.store import GO_ON, LocalStore
from stage1_proposals.shards import ClusterRecord, ShardSet, read_centroids, write_centroids, write_clusters
from stage1_proposals.shards.schema import CENTROIDS_FILE, CLUSTER

ITERATIONS = 25
SAMPLE_PER_CLASS = 256


def proposal_features(shards: ShardSet) -> Iterator[Vectors]:
    """The unit seed features of each shard's proposals, float32 (p, D)."""
    return map(unit_features, shards.readers())


def train_centroids(vectors: Vectors, classes: int, seed: int, starts: int = 1) -> Vectors:
    """Spherical k-means: unit centroids, float32 (k, D), of unit vectors (N, D), with k = `classes` and N >= k.

    Of several starts, the one that fits best counts. On the same hardware, the same seed gives the same centroids.
    """
    kmeans = faiss.Kmeans(
        vectors.shape[1],
        classes,
        spherical=True,
        niter=ITERATIONS,
        nredo=starts,
        seed=seed,
        init_method=faiss.ClusteringInitMethod_KMEANS_PLUS_PLUS,
        gpu=faiss.get_num_gpus() > 0,
        min_points_per_centroid=1,  # by default faiss warns below 39
        max_points_per_centroid=SAMPLE_PER_CLASS,
    )
    kmeans.train(vectors)
    return np.asarray(kmeans.centroids)


def assign(vectors: Vectors, centroids: Vectors) -> NDArray[np.int32]:
    """The index of the nearest centroid to each vector, int32 (N,)."""
    index = faiss.IndexFlatIP(centroids.shape[1])
    index.add(centroids)
    _, nearest = index.search(vectors, 1)
    return nearest[:, 0].astype(np.int32)


def cluster_shards(
    shards: ShardSet, classes: int, seed: int, progress: Callable[[int], None] = lambda _: None
) -> NDArray[np.int64]:
    """Give every shard of a set its cluster column, continuing where an earlier run with the same settings stopped.

    Args:
        classes: k, at least 2 and at most the number of proposals.
        seed: of the sample and of k-means.
        progress: called with numbers of shards done, including those that an earlier run finished.

    Returns:
        Proposals in each class, int64 (k,).

    Raises:
        UserError: `classes` does not fit, the directory is in use or cannot be written.
        ShardError: a shard is damaged.
    """
    proposals = shards.proposal_count
    if not 2 <= classes <= proposals:
        raise UserError(f"{classes} classes: use 2 to {proposals}, the number of proposals in {shards.directory}")
    store = LocalStore(shards.directory)
    with store.exclusive_lock():
        store.remove_leftovers()
        centroids, clusters = _centroids(shards, classes, seed, proposals)
        sizes = np.zeros(classes, np.int64)
        for path, reader in zip(shards.shard_paths, shards.readers(), strict=True):
            is_done = reader.clusters == clusters
            cluster = reader.column(CLUSTER) if is_done else assign(unit_features(reader), centroids)
            reader.close()
            if not is_done:
                with writing(path, GO_ON):
                    write_clusters(path, cluster, clusters)
            sizes += np.bincount(cluster, minlength=classes)
            progress(1)
    return sizes


def _centroids(shards: ShardSet, classes: int, seed: int, proposals: int) -> tuple[Vectors, ClusterRecord]:
    """The centroids beside the shards if they were made with these settings, else new ones; and how they were made."""
    sample = min(SAMPLE_PER_CLASS * classes, proposals)
    settings = ClusterRecord(
        method="spherical k-means",
        classes=classes,
        seed=seed,
        iterations=ITERATIONS,
        sample=sample,
        content_sha256=shards.content_sha256,
    )
    stored = read_centroids(shards.directory)
    if stored is not None and replace(stored[1], centroids_sha256=None, unknown={}) == settings:
        return stored
    vectors = sample_vectors(lambda: proposal_features(shards), proposals, sample, seed)
    centroids = train_centroids(vectors, classes, seed)
    clusters = replace(settings, centroids_sha256=hashlib.sha256(centroids.astype("<f4").tobytes()).hexdigest())
    with writing(shards.directory / CENTROIDS_FILE, GO_ON):
        write_centroids(shards.directory, centroids, clusters)
    return centroids, clusters
