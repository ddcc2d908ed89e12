"""Reading shards: one small read per image, nothing opened before it is needed."""

import json
import os
from collections.abc import Iterator
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from stage1_proposals.shards.schema import (
    CLUSTER,
    COLUMNS,
    FORMAT,
    OPTIONAL_COLUMNS,
    ROOT_ATTRIBUTES,
    VERSION,
    Columns,
    ImageRecord,
    ShardError,
    decode_text,
)

# Linux cuts off a request to read ahead at what its disk takes at once, which is this by default.
READ_AHEAD_BYTES = 1 << 17
# Decoded chunks kept of each column: all of the small columns of a usual shard, a few chunks of the large ones.
CACHE_BYTES = 1 << 19


def open_shard(path: str | Path) -> h5py.File:
    """Open a shard read-only and check that it is one this version reads.

    Raises:
        ShardError: no such file, no HDF5, another format, or a newer version.
    """
    try:
        file = h5py.File(path, "r", rdcc_nbytes=CACHE_BYTES)
    except FileNotFoundError as error:
        raise ShardError(f"{path}: no such shard") from error
    except OSError as error:
        raise ShardError(f"{path}: not a readable HDF5 file ({error})") from error
    try:
        found = read_attribute(file, "format") if "format" in file.attrs else None
        if found != FORMAT:
            raise ShardError(f"{path}: format is {found!r}, not {FORMAT!r}")
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


def read_attribute(item: h5py.File | h5py.Dataset, name: str) -> Any:
    """An attribute: text as str, numbers as int."""
    value = item.attrs[name]
    return decode_text(value) if isinstance(value, bytes) else value.item() if isinstance(value, np.generic) else value


def read_text(dataset: h5py.Dataset) -> list[str]:
    """A text column as str."""
    return [decode_text(bytes(value)) for value in dataset[...]]


def read_columns(file: h5py.File) -> Columns:
    """Every column of an open shard, whole; reading checks each chunk's checksum."""
    columns: dict[str, NDArray[np.generic] | list[str]] = {}
    for name, column in COLUMNS.items():
        columns[name] = read_text(file[name]) if column.dtype is None else file[name][...]
    return columns


class ShardReader:
    """One shard, opened on first use; may be pickled or forked (each process opens its own handle)."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._file: h5py.File | None = None
        self._images: dict[str, NDArray[Any]] = {}
        self._proposals: dict[str, h5py.Dataset] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "_file": None, "_images": {}, "_proposals": {}}

    @property
    def file(self) -> h5py.File:
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
        return str(read_attribute(self.file, "image_root"))

    @property
    def clusters(self) -> dict[str, Any] | None:
        """How this shard's clusters were made (`classes` and more); None when it has none.

        Raises:
            ShardError: it is damaged.
        """
        try:
            return json.loads(read_attribute(self.file[CLUSTER], "clusters")) if CLUSTER in self.file else None
        except (OSError, KeyError, ValueError, RuntimeError) as error:
            raise ShardError(f"{self.path}: {CLUSTER} is damaged ({error}); run `make proposals` again") from error

    def __len__(self) -> int:
        return int(self.file["images/id"].shape[0])

    def column(self, name: str) -> NDArray[Any]:
        """A numeric column, whole.

        Raises:
            ShardError: the data read fail their checksum.
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
            ShardError: the data read fail their checksum.
        """
        try:
            if not self._images:
                self._find_columns()
            if not 0 <= index < len(self._images["images/id"]):
                raise IndexError(f"{self.path}: image {index} of {len(self)}")
            return self._read(index)
        except OSError as error:
            raise ShardError(f"{self.path}: image {index} is damaged ({error}); run `make proposals` again") from error

    def records(self) -> Iterator[ImageRecord]:
        """Every record, in order, read as it is asked for.

        Raises:
            ShardError: the data read fail their checksum.
        """
        return map(self.read, range(len(self)))

    def read_ahead(self) -> None:
        """Ask the kernel to bring the whole shard to memory, front to back, while this process goes on (Linux).

        A hint: reading is the same without it, and where it is not taken.
        """
        if not hasattr(os, "posix_fadvise"):
            return
        with suppress(OSError), open(self.path, "rb") as file:
            for start in range(0, os.fstat(file.fileno()).st_size, READ_AHEAD_BYTES):
                os.posix_fadvise(file.fileno(), start, READ_AHEAD_BYTES, os.POSIX_FADV_WILLNEED)

    def _find_columns(self) -> None:
        """Read the images' columns whole, and look up the proposals': either takes as long as reading a row of one."""
        columns = {name: self.file[name] for name in (*COLUMNS, *OPTIONAL_COLUMNS) if name in self.file}
        self._proposals = {name: column for name, column in columns.items() if name.startswith("proposals/")}
        self._images = {name: column[...] for name, column in columns.items() if name.startswith("images/")}

    def _read(self, index: int) -> ImageRecord:
        images, proposals = self._images, self._proposals
        first, last = (int(row) for row in images["images/proposals_begin"][index : index + 2])
        rows = slice(first, last)
        begin = proposals["proposals/rle_begin"][first : last + 1]
        counts = proposals["proposals/rle"][begin[0] : begin[-1]].tobytes()
        cuts = (begin - begin[0]).tolist()
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
            rle=[counts[start:stop] for start, stop in pairwise(cuts)],
            cluster=proposals[CLUSTER][rows] if CLUSTER in proposals else None,
        )

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
        self._file, self._images, self._proposals = None, {}, {}
