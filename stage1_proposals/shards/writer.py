"""Writing shards and manifests: a file appears under its final name only when it is whole and on disk."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from stage1_proposals.common.files import atomic_write
from stage1_proposals.shards.schema import (
    COLUMNS,
    FORMAT,
    VERSION,
    Columns,
    content_sha256,
    encode_text,
)

# HDF5 1.10 is the first to checksum its own metadata; the columns carry Fletcher-32.
LIBVER = ("v110", "v110")
CHUNK_BYTES = 1 << 15  # an image's rows are few chunks, and little of them is read in vain


@contextmanager
def hdf5_in_memory(path: Path, mode: str) -> Iterator[h5py.File]:
    """Give an HDF5 file held in memory, new (`w`) or that at `path` (`r+`); afterwards put it at `path`, whole.

    HDF5 does not survive a disk that fills up under it, a plain write does.
    """
    with h5py.File(path, mode, libver=LIBVER, driver="core", backing_store=False) as file:
        yield file
        file.flush()
        image = file.id.get_file_image()
    with atomic_write(path) as scratch:
        scratch.write_bytes(image)


def create_column(file: h5py.File, name: str, array: NDArray[Any]) -> h5py.Dataset:
    """A dataset in chunks, each with its checksum."""
    row_bytes = array.dtype.itemsize * int(np.prod(array.shape[1:]))
    rows = max(1, min(CHUNK_BYTES // max(row_bytes, 1), max(len(array), 1)))
    tail = array.shape[1:]
    return file.create_dataset(name, data=array, chunks=(rows, *tail), maxshape=(None, *tail), fletcher32=True)


def _fixed_text(texts: Sequence[str]) -> NDArray[np.bytes_]:
    """Fixed-length UTF-8 strings: they lie where HDF5's checksums reach, variable-length ones would not."""
    data = [encode_text(text) for text in texts]
    return np.array(data, h5py.string_dtype("utf-8", max([1, *map(len, data)])))


def write_attribute(item: h5py.File | h5py.Dataset, name: str, value: str | int) -> None:
    """An attribute, text at fixed length."""
    item.attrs[name] = _fixed_text([value]).reshape(()) if isinstance(value, str) else value


def write_shard(
    path: Path,
    columns: Columns,
    *,
    shard_index: int,
    shard_count: int,
    image_root: str,
    generator: Mapping[str, Any],
    backbone: Mapping[str, Any],
    software: str,
) -> str:
    """Write one shard atomically and return its content hash.

    Args:
        path: final name; an existing file is replaced only when the new one is whole.
        columns: as `schema.to_columns` makes them.
        generator, backbone: stored as JSON.

    Raises:
        OSError: the disk is full or the directory cannot be written; nothing appears under `path`.
    """
    content = content_sha256(columns)
    attributes: dict[str, str | int] = {
        "format": FORMAT,
        "version": VERSION,
        "shard_index": shard_index,
        "shard_count": shard_count,
        "image_root": image_root,
        "generator": json.dumps(generator, sort_keys=True),
        "backbone": json.dumps(backbone, sort_keys=True),
        "software": software,
        "created_utc": datetime.now(UTC).isoformat(timespec="seconds"),
        "content_sha256": content,
    }
    with hdf5_in_memory(path, "w") as file:
        for name, value in attributes.items():
            write_attribute(file, name, value)
        for name in COLUMNS:
            values = columns[name]
            create_column(file, name, _fixed_text(values) if isinstance(values, list) else np.asarray(values))
    return content
