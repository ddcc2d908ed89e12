"""Files and directories: exclusive locks, atomic writes, and one clear line when the disk is full or read-only."""

import fcntl
import hashlib
import json
import os
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from stage1_proposals.common.errors import UserError

LOCK = ".lock"


@contextmanager
def writing(path: Path, hint: str = "") -> Iterator[None]:
    """Make the folder of `path` and, inside, turn any OSError into a UserError that names `path`.

    Args:
        path: the file or directory that is written.
        hint: what to do next, added to the message.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror or error}){hint and f'; {hint}'}") from error


def append_line(path: Path, line: str) -> None:
    """Append a line to a text file. A partial last line, left by a killed process, remains a line of its own.

    Raises:
        UserError: the file cannot be written.
    """
    with writing(path), open(path, "a+b") as file:
        if file.tell():
            file.seek(-1, 2)
            line = ("" if file.read(1) == b"\n" else "\n") + line
        file.write(f"{line}\n".encode())


def check_writable(path: Path) -> None:
    """Check that a file can be written, before the work for it is done; its folder is made.

    Raises:
        UserError: it cannot.
    """
    if path.is_dir():
        raise UserError(f"{path}: is a folder; name a file")
    with writing(path), tempfile.TemporaryFile(dir=path.parent):
        pass


@contextmanager
def exclusive_lock(directory: Path) -> Iterator[None]:
    """Make the directory and hold its lock; the system releases it however the process ends.

    Raises:
        UserError: another run holds it, the directory cannot be made, or its file system has no locks.
    """
    with writing(directory):
        directory.mkdir(parents=True, exist_ok=True)
        (directory / LOCK).touch()
    with open(directory / LOCK, "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UserError(f"{directory}: another run is writing there") from error
        except OSError as error:
            raise UserError(
                f"{directory}: its file system has no locks ({error.strerror}); choose another, or for shards a URL, "
                f"which needs none: file://{directory}"
            ) from error
        yield


def in_use(directory: Path) -> bool:
    """Return whether a process holds the directory's lock; False where that cannot be determined."""
    try:
        with open(directory / LOCK) as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def file_sha256(path: str | Path) -> str:
    """Return the SHA-256 of a file's content, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fsync_directory(directory: str | os.PathLike[str]) -> None:
    """Flush a directory to disk, which makes renames inside it durable."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def encode_text(text: str) -> bytes:
    """UTF-8; bytes of a file name that are not UTF-8 survive the round trip."""
    return text.encode("utf-8", errors="surrogateescape")


def decode_text(data: bytes) -> str:
    """The inverse of `encode_text`."""
    return data.decode("utf-8", errors="surrogateescape")


def scratch_name(name: str) -> str:
    """The name under which a file is written until it is complete; each process has its own."""
    # The host's name, since containers that share a directory may have the same process ids.
    return f".{name}.{socket.gethostname()}-{os.getpid()}.tmp"


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Yield a scratch path beside `path`; afterwards flush it to disk and rename it to `path`.

    `path` is either complete or as it was before, also after a crash.
    """
    scratch = path.with_name(scratch_name(path.name))
    try:
        yield scratch
        with open(scratch, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(scratch, path)
        fsync_directory(path.parent)
    finally:
        scratch.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file atomically, indented and with sorted keys."""
    with atomic_write(path) as scratch:
        scratch.write_text(json.dumps(value, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def write_text(path: Path, text: str) -> Path:
    """Write a text file atomically, make its folder, and return `path`.

    Raises:
        UserError: it cannot be written.
    """
    with writing(path), atomic_write(path) as scratch:
        scratch.write_text(text, encoding="utf-8")
    return path
