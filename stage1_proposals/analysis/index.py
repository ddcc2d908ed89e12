"""Inner-product search among the seed features of a shard set, with faiss.

Vectors have length 1, so that inner products are cosines. They are read from float16 on disk one shard at a time.
What an index holds of N vectors of length D: below `FLAT_BELOW` vectors all of them in float32 (4 N D bytes; exact),
from there on inverted lists in float16 (2 N D bytes, and while it is trained 160 D bytes per list; approximate), in
the memory of the GPU when faiss sees one.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import isqrt

import faiss
import numpy as np
from numpy.typing import NDArray

from stage1_proposals.common.errors import UserError
from stage1_proposals.shards import ShardReader, ShardSet

Vectors = NDArray[np.float32]
# Vectors of length 1, float32 (n, D), shard by shard; each call starts from the first.
Source = Callable[[], Iterator[Vectors]]

FLAT_BELOW = 100_000
LISTS_PROBED = 32
TRAINING_PER_LIST = 40  # faiss asks for 39
QUERY_BATCH = 4096


def unit_features(reader: ShardReader) -> Vectors:
    """The seed features of a shard at length 1, float32 (p, D); features of zeros stay.

    Raises:
        ShardError: they fail their checksum.
    """
    features = np.ascontiguousarray(reader.column("proposals/feature"), np.float32)
    faiss.normalize_L2(features)
    return features


def sample_vectors(source: Source, total: int, size: int, seed: int) -> Vectors:
    """`size` of the source's `total` vectors (all, if fewer), by seed, in their order: 4 size D bytes."""
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
        source: the vectors; those of an index are known by their position.
        total: how many there are.
        dim: D.
        flat_below: vectors from which on inverted lists are used.
    """

    def __init__(self, source: Source, total: int, dim: int, flat_below: int = FLAT_BELOW) -> None:
        lists = 4 * isqrt(total)
        kind = "Flat" if total < flat_below else f"IVF{lists},SQfp16"
        self.index = faiss.index_factory(dim, kind, faiss.METRIC_INNER_PRODUCT)
        if isinstance(self.index, faiss.IndexIVF):
            self.index.nprobe = min(LISTS_PROBED, lists)
        if faiss.get_num_gpus():
            self._resources = faiss.StandardGpuResources()  # the index lives only as long as they do
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
            Cosines float32 (Q, count), falling, and positions int64 (Q, count); position -1 where there are no more.
        """
        batches = [
            self.index.search(queries[first : first + QUERY_BATCH], count)
            for first in range(0, max(len(queries), 1), QUERY_BATCH)
        ]
        return np.concatenate([cosines for cosines, _ in batches]), np.concatenate([found for _, found in batches])


@dataclass(frozen=True)
class Neighbour:
    """A proposal near another one.

    Attributes:
        shard: number of its shard in the set.
        image: number of its image in the shard.
        row: its number in the image.
        cosine: with the other one's seed feature.
    """

    shard: int
    image: int
    row: int
    cosine: float


def similar_proposals(shards: ShardSet, image_id: int, row: int, count: int) -> tuple[Neighbour, list[Neighbour]]:
    """A proposal, and the `count` others nearest to it, nearest first; of equals, the first in the set.

    One query is answered by a pass over the shards: exact, holding one shard's features (4 D bytes per proposal),
    and no dearer than building an index, which takes that pass, too.

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
        order = np.argsort(-cosines, kind="stable")[: count + 1].tolist()  # one more: the query may be among them
        images = (np.searchsorted(begin, order, side="right") - 1).tolist()
        found = [
            Neighbour(number, image, position - int(begin[image]), float(cosines[position]))
            for position, image in zip(order, images, strict=True)
        ]
        others = [one for one in found if (one.shard, one.image, one.row) != (query.shard, query.image, query.row)]
        nearest = sorted([*nearest, *others], key=lambda one: -one.cosine)[:count]
    return query, nearest


def _find_proposal(shards: ShardSet, image_id: int, row: int) -> tuple[Neighbour, Vectors]:
    """Where a proposal is, and its seed feature at length 1, float32 (D,)."""
    for number, reader in enumerate(shards.readers()):
        found = np.flatnonzero(reader.column("images/id") == image_id)
        if len(found):
            record = reader.read(int(found[0]))
            if not 0 <= row < len(record):
                raise UserError(
                    f"image {image_id} ({record.file_name}) has {len(record)} proposals, none is number {row}"
                )
            vector = record.feature[row : row + 1].astype(np.float32)
            faiss.normalize_L2(vector)
            return Neighbour(number, int(found[0]), row, 1.0), vector[0]
    raise UserError(f"{shards.directory}: has no image with id {image_id}; /images/id of the shards lists them")
