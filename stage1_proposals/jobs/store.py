"""Where a shard set is stored: in a directory, or at an fsspec URL such as `s3://bucket/shards`.

Files at a URL are read and written through a local scratch folder, so that the same code handles shards everywhere.
"""

import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, Protocol

from stage1_proposals.common.errors import UserError
from stage1_proposals.common.files import atomic_write, exclusive_lock, scratch_name, writing
from stage1_proposals.shards import (
    MANIFEST,
    ClusterRecord,
    Manifest,
    ShardEntry,
    ShardError,
    ShardReader,
    read_centroids,
    verify_shard,
)
from stage1_proposals.shards.schema import CENTROIDS_FILE

GO_ON = "finished shards are kept, run again to go on"
LEFTOVERS = (".shard-*.h5.*.tmp", f".{MANIFEST}.*.tmp", f".{CENTROIDS_FILE}.*.tmp")


class Store(Protocol):
    """A place for files, each of which is either complete or missing. Can be pickled; `str()` names it in messages."""

    def exclusive_lock(self) -> AbstractContextManager[None]:
        """Create the place and hold its lock, if it has locks.

        Raises:
            UserError: another run holds the lock, or the place cannot be created.
        """

    def remove_leftovers(self) -> None:
        """Remove incomplete files of killed runs."""

    def reading(self, name: str) -> AbstractContextManager[Path]:
        """Yield a local path to read the file from; the path does not exist if the file does not.

        Raises:
            UserError: the file cannot be read.
        """

    def writing(self, name: str) -> AbstractContextManager[Path]:
        """Yield a local path to write the file to; afterwards the file is in the store.

        Raises:
            UserError: the file cannot be written.
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
    """A folder at an fsspec URL. It has no lock: two runs at once do the same work twice, see docs/scale.md.

    Raises:
        UserError: unknown protocol, or the package for it is not installed.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self._connect()

    def __str__(self) -> str:
        return re.sub(r"(//[^/@:]*):[^/]*@", r"\1:***@", self.url)  # without a password

    def _connect(self) -> tuple[Any, str]:
        """The file system, of which fsspec keeps one per thread, and the folder's path in it."""
        import fsspec

        try:
            file_system, path = fsspec.url_to_fs(self.url)
        except ImportError as error:  # its message names the package
            raise UserError(f"{self}: {error}, into the .venv of every machine that writes there") from error
        except Exception as error:
            raise UserError(f"{self}: cannot be used ({error})") from error
        return file_system, path.rstrip("/")

    @contextmanager
    def _connected(self, purpose: str) -> Iterator[tuple[Any, str]]:
        """Yield the file system and the folder's path; whatever a backend raises becomes a `UserError`."""
        file_system, path = self._connect()
        try:
            yield file_system, path
        except Exception as error:
            raise UserError(f"{self}: cannot {purpose} ({str(error) or type(error).__name__}); {GO_ON}") from error

    @contextmanager
    def exclusive_lock(self) -> Iterator[None]:
        with self._connected("create the folder") as (file_system, path):
            if _has_folders(file_system):
                file_system.makedirs(path, exist_ok=True)
        yield

    def remove_leftovers(self) -> None:
        with self._connected("list the folder") as (file_system, path):
            if _has_folders(file_system):
                for file in file_system.ls(path, detail=False):
                    if any(fnmatch(os.path.basename(file), pattern) for pattern in LEFTOVERS):
                        file_system.rm_file(file)

    @contextmanager
    def reading(self, name: str) -> Iterator[Path]:
        with tempfile.TemporaryDirectory() as folder:
            copy = Path(folder, name)
            with self._connected(f"read {name}") as (file_system, path):
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
            local = Path(folder, name)
            with writing(local, GO_ON):
                yield local
            with self._connected(f"write {name}") as (file_system, path):
                _put(file_system, local, f"{path}/{name}")


def _has_folders(file_system: Any) -> bool:
    """Whether the file system has folders and can rename files, unlike an object store."""
    from fsspec import AbstractFileSystem

    return type(file_system).mv is not AbstractFileSystem.mv


def _put(file_system: Any, file: Path, target: str) -> None:
    """Upload a file atomically: object stores always do; elsewhere it is uploaded under another name and renamed."""
    if not _has_folders(file_system):
        file_system.put_file(str(file), target)
        return
    folder, _, name = target.rpartition("/")
    scratch = f"{folder}/{scratch_name(name)}"
    file_system.put_file(str(file), scratch)
    file_system.mv(scratch, target)


def open_store(place: str | Path) -> Store:
    """The store at a path or URL.

    Raises:
        UserError: a URL that cannot be used.
    """
    return RemoteStore(place) if isinstance(place, str) and "://" in place else LocalStore(place)


def stored_manifest(store: Store) -> Manifest | None:
    """The manifest of a store, or None when there is none.

    Raises:
        ShardError: it is not a manifest that this version reads.
    """
    with store.reading(MANIFEST) as path:
        return Manifest.read(path.parent)


def store_manifest(store: Store, manifest: Manifest) -> None:
    """Write the manifest of a store.

    Raises:
        UserError: it cannot be written.
    """
    with store.writing(MANIFEST) as path:
        manifest.write(path.parent)


def _matches(path: Path, entry: ShardEntry) -> bool:
    """Whether the shard at `path` is undamaged and the one that the manifest's entry describes."""
    try:
        return verify_shard(path, decode_masks=False) == entry
    except ShardError:
        return False


def _clusters(path: Path) -> ClusterRecord | None:
    with closing(ShardReader(path)) as reader:
        return reader.clusters


def _fetch_centroids(source: Store, target: LocalStore) -> ClusterRecord | None:
    """Copy the cluster centroids, if the source has any, and return how its clusters were made."""
    with source.reading(CENTROIDS_FILE) as copy:
        stored = read_centroids(copy.parent)
        if stored is None:
            return None
        with target.writing(CENTROIDS_FILE) as path, atomic_write(path) as scratch:
            shutil.copyfile(copy, scratch)
    return stored[1]


def fetch(source: Store, target: LocalStore, progress: Callable[[int], None]) -> None:
    """Copy a finished set to a directory, verifying each shard, with its clusters; when run again, continue.

    Args:
        progress: called with numbers of shards done, including those that were already there.

    Raises:
        ShardError: the source has no finished set, or one of its shards is missing or damaged.
        UserError: the directory holds another set, is in use or cannot be written.
    """
    manifest = stored_manifest(source)
    if manifest is None or manifest.entries is None:
        state = "no shard set here" if manifest is None else "unfinished"
        raise ShardError(f"{source}: {state}; `make proposals SHARDS={source}` makes or finishes it")
    with target.exclusive_lock():
        target_manifest = stored_manifest(target)
        if target_manifest is not None and target_manifest.request.differences(manifest.request):
            raise UserError(f"{target} holds another shard set than {source}; choose another directory")
        store_manifest(target, Manifest(manifest.request, None))
        target.remove_leftovers()
        clusters = _fetch_centroids(source, target)
        for entry in manifest.entries:
            path = target.directory / entry.file
            if not _matches(path, entry) or (clusters is not None and _clusters(path) != clusters):
                with source.reading(entry.file) as copy:
                    if not _matches(copy, entry):
                        what = "missing, damaged or not the shard in the manifest"
                        raise ShardError(f"{copy}: {what}; run the same `make proposals` again")
                    with target.writing(entry.file) as path, atomic_write(path) as scratch:
                        shutil.copyfile(copy, scratch)
            progress(1)
        store_manifest(target, manifest)
