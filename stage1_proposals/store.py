"""Where a shard set is written and found again: a directory, or an fsspec URL such as `s3://bucket/shards`.

A URL's files pass through a local scratch folder, so that shards are written and read by the same code anywhere.
"""

import os
import re
import socket
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, Protocol

from stage1_proposals.directory import sole_user, writing
from stage1_proposals.errors import UserError
from stage1_proposals.shards import MANIFEST, read_manifest, write_manifest
from stage1_proposals.shards.clusters import CENTROIDS_FILE

GO_ON = "finished shards are kept, run again to go on"
LEFTOVERS = (".shard-*.h5.*.tmp", f".{MANIFEST}.*.tmp", f".{CENTROIDS_FILE}.*.tmp")


class Store(Protocol):
    """A place for files, each of them whole or not there. May be pickled; `str()` is its name in messages."""

    def sole_user(self) -> AbstractContextManager[None]:
        """Make the place and, where it has locks, hold its lock.

        Raises:
            UserError: another run holds it, or it cannot be made.
        """

    def remove_leftovers(self) -> None:
        """Remove what killed runs left half-written."""

    def reading(self, name: str) -> AbstractContextManager[Path]:
        """A local path to read the file at; nothing is there when there is no such file.

        Raises:
            UserError: it cannot be had.
        """

    def writing(self, name: str) -> AbstractContextManager[Path]:
        """A local path to write the file to; afterwards it is in its place.

        Raises:
            UserError: it cannot be written or put there.
        """


class LocalStore:
    """A directory, on a disk or a file system that several machines share."""

    def __init__(self, directory: str | Path) -> None:
        self.directory = Path(directory).resolve()

    def __str__(self) -> str:
        return str(self.directory)

    def sole_user(self) -> AbstractContextManager[None]:
        return sole_user(self.directory)

    def remove_leftovers(self) -> None:
        with writing(self.directory, GO_ON):
            for pattern in LEFTOVERS:
                for leftover in self.directory.glob(pattern):
                    leftover.unlink(missing_ok=True)

    @contextmanager
    def reading(self, name: str) -> Iterator[Path]:
        yield self.directory / name

    @contextmanager
    def writing(self, name: str) -> Iterator[Path]:
        with writing(self.directory / name, GO_ON):
            yield self.directory / name


class RemoteStore:
    """A folder at a URL that fsspec knows. It has no lock: two runs at once do the same work twice, see docs/scale.md.

    Raises:
        UserError: no such protocol, or the package for it is not installed.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self._connect()

    def __str__(self) -> str:
        return re.sub(r"(//[^/@:]*):[^/]*@", r"\1:***@", self.url)  # without a password

    def _connect(self) -> tuple[Any, str]:
        """The file system, which fsspec keeps one of per thread, and the folder's path in it."""
        import fsspec

        try:
            file_system, path = fsspec.url_to_fs(self.url)
        except ImportError as error:  # its message names the package
            raise UserError(f"{self}: {error}, into the .venv of every machine that writes there") from error
        except Exception as error:
            raise UserError(f"{self}: cannot be used ({error})") from error
        return file_system, path.rstrip("/")

    @contextmanager
    def _talking(self, doing: str) -> Iterator[tuple[Any, str]]:
        """The file system and the folder's path. Each backend has exceptions of its own; all are the user's error."""
        file_system, path = self._connect()
        try:
            yield file_system, path
        except Exception as error:
            raise UserError(f"{self}: cannot {doing} ({str(error) or type(error).__name__}); {GO_ON}") from error

    @contextmanager
    def sole_user(self) -> Iterator[None]:
        with self._talking("make it") as (file_system, path):
            if _has_folders(file_system):
                file_system.makedirs(path, exist_ok=True)
        yield

    def remove_leftovers(self) -> None:
        with self._talking("list it") as (file_system, path):
            if _has_folders(file_system):
                for there in file_system.ls(path, detail=False):
                    if any(fnmatch(os.path.basename(there), pattern) for pattern in LEFTOVERS):
                        file_system.rm_file(there)

    @contextmanager
    def reading(self, name: str) -> Iterator[Path]:
        with tempfile.TemporaryDirectory() as folder:
            copy = Path(folder, name)
            with self._talking(f"read {name}") as (file_system, path):
                try:
                    file_system.get_file(f"{path}/{name}", str(copy))
                except FileNotFoundError:
                    copy.unlink(missing_ok=True)
            try:
                yield copy
            except UserError as error:
                raise type(error)(str(error).replace(folder, str(self))) from error

    @contextmanager
    def writing(self, name: str) -> Iterator[Path]:
        with tempfile.TemporaryDirectory() as folder:
            made = Path(folder, name)
            with writing(made, GO_ON):
                yield made
            with self._talking(f"write {name}") as (file_system, path):
                _put(file_system, made, f"{path}/{name}")


def _has_folders(file_system: Any) -> bool:
    """Whether it is a tree of folders in which files can be renamed, not an object store."""
    from fsspec import AbstractFileSystem

    return type(file_system).mv is not AbstractFileSystem.mv


def _put(file_system: Any, file: Path, target: str) -> None:
    """Put a file in its place, whole: object stores do no other, elsewhere it is put beside and renamed."""
    if not _has_folders(file_system):
        file_system.put_file(str(file), target)
        return
    folder, _, name = target.rpartition("/")
    scratch = f"{folder}/.{name}.{socket.gethostname()}-{os.getpid()}.tmp"
    file_system.put_file(str(file), scratch)
    file_system.mv(scratch, target)


def open_store(place: str | Path) -> Store:
    """The store at a path or URL.

    Raises:
        UserError: a URL that cannot be used.
    """
    return RemoteStore(place) if isinstance(place, str) and "://" in place else LocalStore(place)


def stored_manifest(store: Store) -> dict[str, Any] | None:
    """The manifest of a store, or None when there is none.

    Raises:
        ShardError: it is not a manifest this version reads.
    """
    with store.reading(MANIFEST) as path:
        return read_manifest(path.parent)


def store_manifest(store: Store, request: dict[str, Any], rows: list[dict[str, Any]] | None) -> None:
    """Write the manifest of a store, see `write_manifest`."""
    with store.writing(MANIFEST) as path:
        write_manifest(path.parent, request, rows)
