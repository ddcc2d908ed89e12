"""Writing shards: a file appears under its final name only when it is complete and on disk."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from stage1_proposals.common.files import atomic_write, encode_text
from stage1_proposals.shards.manifest import ClusterRecord, Request
from stage1_proposals.shards.schema import (
    ATTRIBUTES_SHA256,
    CENTROIDS_FILE,
    CLUSTER,
    COLUMNS,
    FORMAT,
    VERSION,
    Columns,
    attributes_sha256,
    content_sha256,
)

# HDF5 1.10 is the first version that has checksums over its own metadata; the columns have Fletcher-32.
LIBVER = ("v110", "v110")
# Small chunks, so that reading one image's rows reads little else.
CHUNK_BYTES = 1 << 15


@contextmanager
def _hdf5_in_memory(path: Path, mode: str) -> Iterator[h5py.File]:
    """Yield an HDF5 file in memory, new (`w`) or read from `path` (`r+`); afterwards write it to `path` atomically.

    HDF5 cannot recover when the disk fills up while it writes; a plain write can.
    """
    with h5py.File(path, mode, libver=LIBVER, driver="core", backing_store=False) as file:
        yield file
        file.flush()
        image = file.id.get_file_image()
    with atomic_write(path) as scratch:
        scratch.write_bytes(image)


def _create_column(file: h5py.File, name: str, array: NDArray[Any]) -> h5py.Dataset:
    """Create a dataset in chunks, each with a checksum."""
    row_bytes = array.dtype.itemsize * int(np.prod(array.shape[1:]))
    rows = max(1, min(CHUNK_BYTES // max(row_bytes, 1), max(len(array), 1)))
    tail = array.shape[1:]
    return file.create_dataset(name, data=array, chunks=(rows, *tail), maxshape=(None, *tail), fletcher32=True)


def _fixed_text(texts: Sequence[str]) -> NDArray[np.bytes_]:
    """Text for a column, as fixed-length UTF-8: chunks' checksums do not cover variable-length text."""
    data = [encode_text(text) for text in texts]
    return np.array(data, h5py.string_dtype("utf-8", max([1, *map(len, data)])))


def _write_attributes(item: h5py.File | h5py.Dataset, attributes: Mapping[str, str | int]) -> None:
    """Write attributes and their hash; text is variable-length UTF-8, which h5py reads as `str`."""
    for name, value in {**attributes, ATTRIBUTES_SHA256: attributes_sha256(attributes)}.items():
        if isinstance(value, str):
            item.attrs.create(name, encode_text(value), dtype=h5py.string_dtype("utf-8"))
        else:
            item.attrs[name] = value


def write_shard(
    path: Path,
    columns: Columns,
    request: Request,
    shard_index: int,
    software: str,
) -> str:
    """Write one shard atomically and return its content hash.

    Args:
        path: final name; an existing file is replaced only when the new one is complete.
        columns: as `schema.to_columns` makes them.
        request: of the whole set.
        software: name and version of the program that made the columns.

    Raises:
        OSError: the disk is full or read-only; nothing appears under `path`.
    """
    content = content_sha256(columns)
    attributes: dict[str, str | int] = {
        "format": FORMAT,
        "version": VERSION,
        "shard_index": shard_index,
        "shard_count": request.shard_count,
        "image_root": request.image_root,
        "generator": json.dumps(request.generator, sort_keys=True),
        "backbone": json.dumps(request.backbone.to_json(), sort_keys=True),
        "software": software,
        "created_utc": datetime.now(UTC).isoformat(timespec="seconds"),
        "content_sha256": content,
    }
    with _hdf5_in_memory(path, "w") as file:
        _write_attributes(file, attributes)
        for name in COLUMNS:
            values = columns[name]
            _create_column(file, name, _fixed_text(values) if isinstance(values, list) else np.asarray(values))
    return content


def write_clusters(path: Path, cluster: NDArray[np.int32], clusters: ClusterRecord) -> None:
    """Give the shard at `path` its cluster column, replacing one it may have; everything else in it stays.

    The shard is replaced by a complete new file, so that it can be read at any time.

    Args:
        cluster: int32 (p,), pseudo class of each proposal, from 0.
        clusters: how they were made.

    Raises:
        OSError: the shard cannot be read or written; it stays as it was.
    """
    with _hdf5_in_memory(path, "r+") as file:
        # HDF5 puts new text into a heap that it has read from, if there is room, and otherwise into a new one of 4 KB.
        file.attrs.get("format")
        if CLUSTER in file:
            del file[CLUSTER]
        column = _create_column(file, CLUSTER, cluster)
        _write_attributes(column, {"clusters": json.dumps(clusters.to_json(), sort_keys=True)})


def write_centroids(directory: Path, centroids: NDArray[np.float32], clusters: ClusterRecord) -> None:
    """Write the cluster centroids, float32 (k, D), and how they were made, beside the shards.

    Raises:
        OSError: the disk is full or read-only.
    """
    with _hdf5_in_memory(directory / CENTROIDS_FILE, "w") as file:
        column = _create_column(file, "centroids", centroids)
        _write_attributes(column, {"clusters": json.dumps(clusters.to_json(), sort_keys=True)})
