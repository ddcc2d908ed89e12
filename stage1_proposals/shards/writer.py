"""Writing shards and manifests: a file appears under its final name only when it is whole and on disk."""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from stage1_proposals.shards.schema import (
    COLUMNS,
    FORMAT,
    VERSION,
    Columns,
    content_sha256,
    encode_text,
    fsync_directory,
)

# HDF5 1.10 is the first to checksum its own metadata; the columns carry Fletcher-32.
LIBVER = ("v110", "v110")
CHUNK_BYTES = 1 << 16


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Give a scratch path beside `path`; afterwards flush it to disk and rename it to `path`."""
    scratch = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield scratch
        with open(scratch, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(scratch, path)
        fsync_directory(path.parent)
    finally:
        scratch.unlink(missing_ok=True)


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
    with whole_file(path) as scratch, h5py.File(scratch, "w", libver=LIBVER) as file:
        file.attrs.update(attributes)
        for name in COLUMNS:
            values = columns[name]
            if isinstance(values, list):
                data = [encode_text(text) for text in values]
                # Fixed-length strings lie inside the checksummed chunks; variable-length ones would not.
                width = max([1, *map(len, data)])
                array = np.array(data, h5py.string_dtype("utf-8", width))
            else:
                array = np.asarray(values)
            row_bytes = array.dtype.itemsize * int(np.prod(array.shape[1:]))
            rows = max(1, min(CHUNK_BYTES // max(row_bytes, 1), max(len(array), 1)))
            file.create_dataset(
                name,
                data=array,
                chunks=(rows, *array.shape[1:]),
                maxshape=(None, *array.shape[1:]),
                fletcher32=True,
            )
    return content


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file atomically."""
    with whole_file(path) as scratch:
        scratch.write_text(json.dumps(value, indent=2, sort_keys=True) + "\n", encoding="utf-8")
