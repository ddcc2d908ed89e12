"""Reading shards: one small read per image; a file is opened when it is first needed."""

import json
import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from stage1_proposals.common.files import decode_text
from stage1_proposals.shards.manifest import ClusterRecord
from stage1_proposals.shards.schema import (
    ATTRIBUTES_SHA256,
    CENTROIDS_FILE,
    CLUSTER,
    COLUMNS,
    FORMAT,
    OPTIONAL_COLUMNS,
    ROOT_ATTRIBUTES,
    VERSION,
    Columns,
    ImageRecord,
    ShardError,
    attributes_sha256,
)

# Linux shortens a longer request to read ahead to its disk's limit, which is this by default.
READ_AHEAD_BYTES = 1 << 17
# HDF5 stores variable-length text in heaps: a signature with the version, the heap's size in 8 bytes, then objects. An
# object has an index and a reference count of 2 bytes, 4 unused bytes, a size of 8 bytes and data padded to 8 bytes.
HEAP_SIGNATURE = b"GCOL\x01\0\0\0"
HEAP_HEADER = 16
# The writer writes the root attributes, and so their heap, before all columns.
ROOT_HEAP_BYTES = 1 << 16
# Per column, HDF5 keeps this much of decoded chunks: a usual shard's small columns whole, a few chunks of the large.
CACHE_BYTES = 1 << 19


def open_shard(path: str | Path) -> h5py.File:
    """Open a shard read-only and check that this version can read it.

    Raises:
        ShardError: no such file, not HDF5, another format, or a newer version.
    """
    try:
        file = h5py.File(path, "r", rdcc_nbytes=CACHE_BYTES)
    except FileNotFoundError as error:
        raise ShardError(f"{path}: no such shard") from error
    except OSError as error:
        raise ShardError(f"{path}: not a readable HDF5 file ({error})") from error
    try:
        check_text_heaps(path, ROOT_HEAP_BYTES)
        file_format = read_attribute(file, "format") if "format" in file.attrs else None
        if file_format != FORMAT:
            raise ShardError(f"{path}: format is {file_format!r}, not {FORMAT!r}")
        version = int(file.attrs["version"])
        if version > VERSION:
            raise ShardError(f"{path}: shard version {version} is newer than {VERSION}; update this software")
        missing = [name for name in ROOT_ATTRIBUTES if name not in file.attrs]
        missing += [name for name in COLUMNS if name not in file]
        if missing:
            raise ShardError(f"{path}: lacks {', '.join(missing)}")
    except ShardError:
        file.close()
        raise
    except (OSError, KeyError, ValueError, RuntimeError) as error:
        file.close()
        raise ShardError(f"{path}: damaged ({error})") from error
    return file


def check_text_heaps(path: str | Path, limit: int = -1) -> None:
    """Check that the sizes of objects in heaps add up; HDF5 itself may loop forever over a heap that is damaged.

    Args:
        limit: check only so many bytes at the file's beginning; by default, the whole file.

    Raises:
        ValueError: a heap is damaged.
    """
    with open(path, "rb") as file:
        data = file.read(limit)
    start = data.find(HEAP_SIGNATURE)
    while start >= 0:
        end = start + int.from_bytes(data[start + 8 : start + HEAP_HEADER], "little")
        position = start + HEAP_HEADER
        while position + HEAP_HEADER <= min(end, len(data)):
            index = int.from_bytes(data[position : position + 2], "little")
            size = int.from_bytes(data[position + 8 : position + HEAP_HEADER], "little")
            # The free space at the end has index 0 and a size that includes its header.
            position += size if index == 0 else HEAP_HEADER + -(-size // 8) * 8
            if (index == 0 and size < HEAP_HEADER) or position > end:
                raise ValueError("variable-length text has no valid sizes")
        start = data.find(HEAP_SIGNATURE, start + 1)


def read_attribute(item: h5py.File | h5py.Dataset, name: str) -> Any:
    """An attribute: text as str, whether of fixed or variable length, and numbers as int."""
    value = item.attrs[name]
    return decode_text(value) if isinstance(value, bytes) else value.item() if isinstance(value, np.generic) else value


def check_attributes(item: h5py.File | h5py.Dataset, names: Iterable[str]) -> None:
    """Check attributes against the hash beside them, if there is one.

    Raises:
        ValueError: they do not have that hash.
    """
    if ATTRIBUTES_SHA256 in item.attrs:
        attributes = {name: read_attribute(item, name) for name in names}
        if attributes_sha256(attributes) != read_attribute(item, ATTRIBUTES_SHA256):
            raise ValueError(f"the attributes of {item.name} do not have the hash stored with them")


def read_text(dataset: h5py.Dataset) -> list[str]:
    """A text column as str."""
    return [decode_text(bytes(value)) for value in dataset[...]]


def read_columns(file: h5py.File) -> Columns:
    """All columns of an open shard; reading checks each chunk's checksum."""
    columns: dict[str, NDArray[np.generic] | list[str]] = {}
    for name, column in COLUMNS.items():
        columns[name] = read_text(file[name]) if column.dtype is None else file[name][...]
    return columns


class ShardReader:
    """One shard, opened on first use; may be pickled or forked, each process opening the file for itself."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._file: h5py.File | None = None
        self._images: dict[str, NDArray[Any]] = {}
        self._proposals: dict[str, h5py.Dataset] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "_file": None, "_images": {}, "_proposals": {}}

    @property
    def file(self) -> h5py.File:
        """The open HDF5 file.

        Raises:
            ShardError: it cannot be read, see `open_shard`.
        """
        if self._file is None:
            self._file = open_shard(self.path)
        return self._file

    @property
    def attributes(self) -> dict[str, Any]:
        """Root attributes, `generator` and `backbone` parsed."""
        attributes = {name: read_attribute(self.file, name) for name in ROOT_ATTRIBUTES}
        return attributes | {name: json.loads(attributes[name]) for name in ("generator", "backbone")}

    @property
    def image_root(self) -> str:
        """Folder of the images when the shard was made."""
        return str(read_attribute(self.file, "image_root"))

    @property
    def clusters(self) -> ClusterRecord | None:
        """How this shard's clusters were made; None when it has none.

        Raises:
            ShardError: the description is damaged.
        """
        try:
            return _read_clusters(self.file[CLUSTER]) if CLUSTER in self.file else None
        except (OSError, KeyError, ValueError, RuntimeError, ShardError) as error:
            raise ShardError(f"{self.path}: {CLUSTER} is damaged ({error}); run `make proposals` again") from error

    def __len__(self) -> int:
        return int(self.file["images/id"].shape[0])

    def column(self, name: str) -> NDArray[Any]:
        """All of a numeric column.

        Raises:
            ShardError: the column is damaged.
        """
        try:
            return self.file[name][...]
        except OSError as error:
            raise ShardError(f"{self.path}: {name} is damaged ({error}); run `make proposals` again") from error

    def file_names(self) -> list[str]:
        """Paths of the images relative to `image_root`, in order."""
        return read_text(self.file["images/file_name"])

    def failures(self) -> list[tuple[str, str]]:
        """(file name, reason) of images that could not be used."""
        group = self.file["failures"]
        return list(zip(read_text(group["file_name"]), read_text(group["error"]), strict=True))

    def read(self, index: int) -> ImageRecord:
        """The record of image `index` of this shard.

        Raises:
            IndexError: no such image.
            ShardError: the record is damaged.
        """
        try:
            if not self._images:
                self._open_columns()
            if not 0 <= index < len(self._images["images/id"]):
                raise IndexError(f"{self.path}: image {index} of {len(self)}")
            return self._read(index)
        except OSError as error:
            raise ShardError(f"{self.path}: image {index} is damaged ({error}); run `make proposals` again") from error

    def records(self) -> Iterator[ImageRecord]:
        """Every record, in order, each read when it is requested.

        Raises:
            ShardError: a record is damaged.
        """
        return map(self.read, range(len(self)))

    def read_ahead(self) -> None:
        """Ask the kernel to read the whole shard into memory in the background (Linux).

        This is a hint: everything works the same without it.
        """
        if not hasattr(os, "posix_fadvise"):
            return
        with suppress(OSError), open(self.path, "rb") as file:
            for start in range(0, os.fstat(file.fileno()).st_size, READ_AHEAD_BYTES):
                os.posix_fadvise(file.fileno(), start, READ_AHEAD_BYTES, os.POSIX_FADV_WILLNEED)

    def _open_columns(self) -> None:
        """Read the images' columns, which are small, and look up those of the proposals, once for all records."""
        columns = {name: self.file[name] for name in (*COLUMNS, *OPTIONAL_COLUMNS) if name in self.file}
        self._proposals = {name: column for name, column in columns.items() if name.startswith("proposals/")}
        self._images = {name: column[...] for name, column in columns.items() if name.startswith("images/")}

    def _read(self, index: int) -> ImageRecord:
        images, proposals = self._images, self._proposals
        first, last = (int(row) for row in images["images/proposals_begin"][index : index + 2])
        rows = slice(first, last)
        rle_begin = proposals["proposals/rle_begin"][first : last + 1]
        rle = proposals["proposals/rle"][rle_begin[0] : rle_begin[-1]].tobytes()
        mask_begin = (rle_begin - rle_begin[0]).tolist()
        return ImageRecord(
            image_id=int(images["images/id"][index]),
            file_name=decode_text(bytes(images["images/file_name"][index])),
            height=int(images["images/height"][index]),
            width=int(images["images/width"][index]),
            bbox=proposals["proposals/bbox"][rows],
            score=proposals["proposals/score"][rows],
            area=proposals["proposals/area"][rows],
            seed=proposals["proposals/seed"][rows],
            feature=proposals["proposals/feature"][rows],
            rle=[rle[start:stop] for start, stop in pairwise(mask_begin)],
            cluster=proposals[CLUSTER][rows] if CLUSTER in proposals else None,
        )

    def close(self) -> None:
        """Close the file; the next use opens it again."""
        if self._file is not None:
            self._file.close()
        self._file, self._images, self._proposals = None, {}, {}


def _read_clusters(column: h5py.Dataset) -> ClusterRecord:
    """How clusters were made, from the attributes of the column that holds them or their centroids."""
    check_attributes(column, ["clusters"])
    return ClusterRecord.from_json(json.loads(read_attribute(column, "clusters")), "clusters")


def read_centroids(directory: Path) -> tuple[NDArray[np.float32], ClusterRecord] | None:
    """The cluster centroids beside the shards, float32 (k, D), and how they were made; None if missing or damaged."""
    try:
        with h5py.File(directory / CENTROIDS_FILE, "r") as file:
            return file["centroids"][...], _read_clusters(file["centroids"])
    except (OSError, KeyError, ValueError, RuntimeError, ShardError):
        return None
