"""Directories that a command writes: one run at a time, and one clear line when the disk says no."""

import fcntl
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from stage1_proposals.common.errors import UserError

LOCK = ".lock"


@contextmanager
def writing(path: Path, hint: str = "") -> Iterator[None]:
    """Turn a disk that is full or a folder that may not be written into the user's error.

    Args:
        path: what is written; its folder is made.
        hint: what to do next, for the message's end.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror or error}){hint and f'; {hint}'}") from error


def append_line(path: Path, line: str) -> None:
    """Append a line to a log of lines, of which a killed process may have left half; that half stays a line of its own.

    Raises:
        UserError: it cannot be written.
    """
    with writing(path), open(path, "a+b") as file:
        if file.tell():
            file.seek(-1, 2)
            line = ("" if file.read(1) == b"\n" else "\n") + line
        file.write(f"{line}\n".encode())


def check_writable(path: Path) -> None:
    """Check that a file can be written before the work for it is done; its folder is made.

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
        UserError: another run holds it, it cannot be made, or its file system has no locks.
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
    """Whether some process holds the directory's lock; False where that cannot be told."""
    try:
        with open(directory / LOCK) as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False
