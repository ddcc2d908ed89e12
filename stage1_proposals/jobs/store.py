"""Where a shard set is written and found again: a directory, or an fsspec URL such as `s3://bucket/shards`.

A URL's files pass through a local scratch folder, so that shards are written and read by the same code anywhere.
"""

import os
import re
import shutil
import socket
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, Protocol

from stage1_proposals.common.errors import UserError
from stage1_proposals.common.files import atomic_write, exclusive_lock, writing
from stage1_proposals.shards import MANIFEST, ShardError, read_manifest, verify_shard, write_manifest
from stage1_proposals.shards.clusters import CENTROIDS_FILE

GO_ON = "finished shards are kept, run again to go on"
LEFTOVERS = (".shard-*.h5.*.tmp", f".{MANIFEST}.*.tmp", f".{CENTROIDS_FILE}.*.tmp")


class Store(Protocol):
    """A place for files, each of them whole or not there. May be pickled; `str()` is its name in messages."""

    def exclusive_lock(self) -> AbstractContextManager[None]:
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

    def exclusive_lock(self) -> AbstractContextManager[None]:
        return exclusive_lock(self.directory)

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
    def exclusive_lock(self) -> Iterator[None]:
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


def is_sound(path: Path, row: dict[str, Any]) -> bool:
    """Whether an undamaged shard lies there, the one that its line of the manifest names."""
    try:
        return verify_shard(path, decode_masks=False) == row
    except ShardError:
        return False


def fetch(source: Store, target: LocalStore, progress: Callable[[int], None]) -> None:
    """Copy a finished set to a directory, each shard verified; run again, it goes on.

    Args:
        progress: called with numbers of shards done; those already there count too.

    Raises:
        ShardError: there is no finished set, or one of its shards is missing or damaged.
        UserError: the directory holds another set, is in use or cannot be written.
    """
    manifest = stored_manifest(source)
    if manifest is None or manifest["shards"] is None:
        found = "no shard set here" if manifest is None else "unfinished"
        raise ShardError(f"{source}: {found}; `make proposals SHARDS={source}` makes or finishes it")
    with target.exclusive_lock():
        there = stored_manifest(target)
        if there is not None and there["request"] != manifest["request"]:
            raise UserError(f"{target} holds another shard set than {source}; choose another directory")
        store_manifest(target, manifest["request"], None)
        target.remove_leftovers()
        for row in manifest["shards"]:
            if not is_sound(target.directory / row["file"], row):
                with source.reading(row["file"]) as copy:
                    if not is_sound(copy, row):
                        raise ShardError(f"{copy}: missing, damaged or another; run the same `make proposals` again")
                    with target.writing(row["file"]) as path, atomic_write(path) as scratch:
                        shutil.copyfile(copy, scratch)
            progress(1)
        store_manifest(target, manifest["request"], manifest["shards"])
