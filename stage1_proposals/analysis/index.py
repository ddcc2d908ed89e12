"""Inner-product search among the seed features of a shard set, with faiss.

Vectors have length 1, so that inner products are cosines. They are read from disk one shard at a time. An index of N
vectors of length D is exact and takes 4 N D bytes (float32) below `FLAT_BELOW` vectors. For more vectors it has
inverted lists, is approximate and takes 2 N D bytes (float16), plus 160 D bytes per list during training. If faiss
finds a GPU, the index is in its memory.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from math import isqrt

import faiss
import numpy as np
from numpy.typing import NDArray

from stage1_proposals.common.errors import UserError
from stage1_proposals.shards import ShardReader, ShardSet

Vectors = NDArray[np.float32]
# Each call yields all vectors from the start: of length 1, float32 (n, D), shard by shard.
Source = Callable[[], Iterator[Vectors]]

FLAT_BELOW = 100_000
LISTS_PROBED = 32
TRAINING_PER_LIST = 40  # faiss warns below 39
QUERY_BATCH = 4096


def unit_features(reader: ShardReader) -> Vectors:
    """A shard's seed features, float32 (p, D), scaled to length 1; all-zero features stay zero.

    Raises:
        ShardError: the column is damaged.
    """
    features = np.ascontiguousarray(reader.column("proposals/feature"), np.float32)
    faiss.normalize_L2(features)
    return features


def sample_vectors(source: Source, total: int, size: int, seed: int) -> Vectors:
    """A random sample of `size` of the source's `total` vectors (all, if there are fewer), in their order."""
    size = min(size, total)
    chosen = np.sort(np.random.default_rng(seed).choice(total, size, replace=False, shuffle=False))
    parts, first = [], 0
    for block in source():
        low, high = np.searchsorted(chosen, (first, first + len(block)))
        parts.append(block[chosen[low:high] - first])
        first += len(block)
    return np.concatenate(parts)


class VectorIndex:
    """An inner-product index: flat (exact) for few vectors, inverted lists for many.

    Args:
        source: the vectors; results name them by their position in the source.
        total: number of vectors.
        dim: D.
        flat_below: from this number of vectors on, the index has inverted lists.
    """

    def __init__(self, source: Source, total: int, dim: int, flat_below: int = FLAT_BELOW) -> None:
        lists = 4 * isqrt(total)
        kind = "Flat" if total < flat_below else f"IVF{lists},SQfp16"
        self.index = faiss.index_factory(dim, kind, faiss.METRIC_INNER_PRODUCT)
        if isinstance(self.index, faiss.IndexIVF):
            self.index.nprobe = min(LISTS_PROBED, lists)
        if faiss.get_num_gpus():
            self._resources = faiss.StandardGpuResources()  # the index needs them as long as it exists
            self.index = faiss.index_cpu_to_gpu(self._resources, 0, self.index)
        if kind != "Flat":
            self.index.train(sample_vectors(source, total, TRAINING_PER_LIST * lists, seed=0))
        for block in source():
            self.index.add(block)

    def search(self, queries: Vectors, count: int) -> tuple[Vectors, NDArray[np.int64]]:
        """The nearest vectors of each query.

        Args:
            queries: float32 (Q, D), of length 1.

        Returns:
            Cosines, float32 (Q, count), descending, and positions, int64 (Q, count); -1 where there are no more.
        """
        batches = [
            self.index.search(queries[first : first + QUERY_BATCH], count)
            for first in range(0, max(len(queries), 1), QUERY_BATCH)
        ]
        cosines, positions = zip(*batches, strict=True)
        return np.concatenate(cosines), np.concatenate(positions)


@dataclass(frozen=True)
class Neighbour:
    """A proposal and its similarity to a query.

    Attributes:
        shard: number of its shard in the set.
        image: number of its image in the shard.
        row: its number in the image.
        cosine: of its seed feature with the query's.
    """

    shard: int
    image: int
    row: int
    cosine: float


def similar_proposals(shards: ShardSet, image_id: int, row: int, count: int) -> tuple[Neighbour, list[Neighbour]]:
    """A proposal, and the `count` others nearest to it, nearest first; of equally near ones, the first in the set.

    A single query takes one pass over the shards, as building an index would. The result is exact, and memory holds one
    shard's features (4 D bytes per proposal).

    Args:
        row: number of the proposal in its image.

    Raises:
        UserError: the set has no such image, or the image no such proposal.
        ShardError: a shard is damaged.
    """
    query, vector = _find_proposal(shards, image_id, row)
    nearest: list[Neighbour] = []
    for number, reader in enumerate(shards.readers()):
        begin = reader.column("images/proposals_begin")
        cosines = unit_features(reader) @ vector
        order = np.argsort(-cosines, kind="stable")[: count + 1].tolist()  # one more, as the query may be among them
        images = (np.searchsorted(begin, order, side="right") - 1).tolist()
        neighbours = [
            Neighbour(number, image, position - int(begin[image]), float(cosines[position]))
            for position, image in zip(order, images, strict=True)
        ]
        nearest += [other for other in neighbours if replace(other, cosine=query.cosine) != query]
        nearest = sorted(nearest, key=lambda neighbour: -neighbour.cosine)[:count]
    return query, nearest


def _find_proposal(shards: ShardSet, image_id: int, row: int) -> tuple[Neighbour, Vectors]:
    """A proposal's place in the set, and its seed feature scaled to length 1, float32 (D,)."""
    for number, reader in enumerate(shards.readers()):
        images = np.flatnonzero(reader.column("images/id") == image_id)
        if len(images):
            record = reader.read(int(images[0]))
            if not 0 <= row < len(record):
                raise UserError(
                    f"image {image_id} ({record.file_name}) has {len(record)} proposals, none is number {row}"
                )
            vector = record.feature[row : row + 1].astype(np.float32)
            faiss.normalize_L2(vector)
            return Neighbour(number, int(images[0]), row, 1.0), vector[0]
    raise UserError(f"{shards.directory}: has no image with id {image_id}; /images/id of the shards lists them")
