"""The shard format, version 1: its columns and attributes, their hashes, and the record of one image.

`docs/shards.md` documents the format for programs of other people.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from stage1_proposals.common.errors import UserError
from stage1_proposals.common.files import encode_text
from stage1_proposals.common.masks import Rle, rle_objects
from stage1_proposals.common.run_lengths import decode

FORMAT = "saliency-prompt/pseudo-labels"
VERSION = 1


class ShardError(UserError):
    """A shard or shard set that is missing, damaged, unfinished or of another format."""


@dataclass(frozen=True)
class Column:
    """One dataset of a shard: its numpy dtype (None: UTF-8 text) and its number of dimensions."""

    dtype: str | None
    ndim: int = 1


COLUMNS: dict[str, Column] = {
    "images/id": Column("<i8"),
    "images/file_name": Column(None),
    "images/height": Column("<i4"),
    "images/width": Column("<i4"),
    "images/proposals_begin": Column("<i8"),
    "proposals/bbox": Column("<f4", 2),
    "proposals/score": Column("<f4"),
    "proposals/area": Column("<i8"),
    "proposals/seed": Column("<f4", 2),
    "proposals/feature": Column("<f2", 2),
    "proposals/rle_begin": Column("<i8"),
    "proposals/rle": Column("|u1"),
    "failures/file_name": Column(None),
    "failures/error": Column(None),
}

# An optional column, which the content hash does not cover, and the file of its centroids beside the shards.
CLUSTER = "proposals/cluster"
CENTROIDS_FILE = "clusters.h5"
OPTIONAL_COLUMNS: dict[str, Column] = {CLUSTER: Column("<i4")}

ROOT_ATTRIBUTES = (
    "format",
    "version",
    "shard_index",
    "shard_count",
    "image_root",
    "generator",
    "backbone",
    "software",
    "created_utc",
    "content_sha256",
)

# HDF5 has no checksum over variable-length text, so this attribute holds a hash of the others beside it. Shards whose
# attributes are of fixed length, as they were first written, lack it: there, HDF5's own checksums cover them.
ATTRIBUTES_SHA256 = "attributes_sha256"

# Numeric columns are arrays of their dtype, text columns lists of str.
Columns = Mapping[str, "NDArray[np.generic] | list[str]"]


@dataclass(frozen=True)
class ImageRecord:
    """One image and its L proposals, as a shard holds them.

    Attributes:
        image_id: COCO id, or a stable hash of the relative path.
        file_name: path relative to the shard's `image_root`.
        height, width: pixels after EXIF orientation.
        bbox: float32 (L, 4), x1, y1, x2, y2 in pixels, tight around the mask.
        score: float32 (L,), in [0, 1].
        area: int64 (L,), mask pixels.
        seed: float32 (L, 2), seed centre (y, x) in [0, 1] of height and width.
        feature: float16 (L, D), the seed feature S_l.
        rle: L COCO compressed RLE counts at full image size.
        cluster: int32 (L,), pseudo classes from 0; None when the shard has none.
    """

    image_id: int
    file_name: str
    height: int
    width: int
    bbox: NDArray[np.float32]
    score: NDArray[np.float32]
    area: NDArray[np.int64]
    seed: NDArray[np.float32]
    feature: NDArray[np.float16]
    rle: list[bytes]
    cluster: NDArray[np.int32] | None = None

    def __len__(self) -> int:
        return len(self.rle)

    def only(self, row: int) -> "ImageRecord":
        """The same image with just one of its proposals."""
        return self.take([row])

    def take(self, rows: Sequence[int] | NDArray[np.integer]) -> "ImageRecord":
        """The same image with the proposals of these rows alone, in their order."""
        chosen = np.asarray(rows, np.int64)
        arrays = {name: getattr(self, name)[chosen] for name in ("bbox", "score", "area", "seed", "feature")}
        cluster = None if self.cluster is None else self.cluster[chosen]
        return replace(self, **arrays, rle=[self.rle[row] for row in chosen], cluster=cluster)

    def coco_rle(self) -> list[Rle]:
        """The masks as pycocotools RLE objects."""
        return rle_objects(self.rle, (self.height, self.width))

    def masks(self) -> NDArray[np.uint8]:
        """The masks decoded: uint8 (L, height, width), 0 or 1; in memory column by column.

        Raises:
            ValueError: a mask is damaged.
        """
        return decode(self.rle, (self.height, self.width))


def to_columns(records: Sequence[ImageRecord], failures: Sequence[tuple[str, str]], feature_dim: int) -> Columns:
    """Gather records and (file name, error) failures into the shard's columns."""

    def stack(name: str, tail: tuple[int, ...] = ()) -> NDArray[np.generic]:
        dtype = COLUMNS[f"proposals/{name}"].dtype
        parts = [np.asarray(getattr(record, name), dtype).reshape(-1, *tail) for record in records]
        return np.concatenate([np.zeros((0, *tail), dtype), *parts])

    def offsets(lengths: Sequence[int]) -> NDArray[np.int64]:
        return np.cumsum([0, *lengths], dtype="<i8")

    counts = [rle for record in records for rle in record.rle]
    return {
        "images/id": np.array([record.image_id for record in records], "<i8"),
        "images/file_name": [record.file_name for record in records],
        "images/height": np.array([record.height for record in records], "<i4"),
        "images/width": np.array([record.width for record in records], "<i4"),
        "images/proposals_begin": offsets([len(record) for record in records]),
        "proposals/bbox": stack("bbox", (4,)),
        "proposals/score": stack("score"),
        "proposals/area": stack("area"),
        "proposals/seed": stack("seed", (2,)),
        "proposals/feature": stack("feature", (feature_dim,)),
        "proposals/rle_begin": offsets([len(rle) for rle in counts]),
        "proposals/rle": np.frombuffer(b"".join(counts), "|u1"),
        "failures/file_name": [name for name, _ in failures],
        "failures/error": [error for _, error in failures],
    }


def attributes_sha256(attributes: Mapping[str, str | int]) -> str:
    """SHA-256 over attributes: of the JSON object of names and values, keys sorted, in ASCII."""
    return hashlib.sha256(json.dumps(attributes, sort_keys=True).encode()).hexdigest()


def content_sha256(columns: Columns) -> str:
    """SHA-256 over the columns' logical content, independent of the HDF5 layout.

    Per column, in the order of `COLUMNS`: its name, dtype and shape as text, then its little-endian bytes; text
    columns as one length (8 bytes) and its UTF-8 bytes per string.
    """
    digest = hashlib.sha256()
    for name, column in COLUMNS.items():
        values = columns[name]
        if isinstance(values, list):
            digest.update(f"{name} utf-8 {len(values)}\n".encode())
            for text in values:
                data = encode_text(text)
                digest.update(len(data).to_bytes(8, "little"))
                digest.update(data)
        else:
            digest.update(f"{name} {column.dtype} {'x'.join(map(str, values.shape))}\n".encode())
            digest.update(np.ascontiguousarray(values).tobytes())
    return digest.hexdigest()


def shard_file_name(index: int, count: int) -> str:
    """`shard-00003-of-00124.h5`."""
    return f"shard-{index:05d}-of-{count:05d}.h5"
