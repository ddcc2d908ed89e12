"""One run at a time in a directory, and a clear line when it cannot be written."""

import errno
import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest

from stage1_proposals.common.errors import UserError
from stage1_proposals.common.files import append_line, check_writable, exclusive_lock, in_use, writing


def test_a_directory_is_made_and_has_one_user_at_a_time(tmp_path: Path) -> None:
    directory = tmp_path / "a" / "b"
    for _ in range(2):
        with exclusive_lock(directory), pytest.raises(UserError, match="b: another run is writing there"):  # noqa: SIM117
            with exclusive_lock(directory):
                pass


def test_the_lock_of_a_killed_process_is_free(tmp_path: Path) -> None:
    program = "import sys, time; from pathlib import Path; from stage1_proposals.common.files import exclusive_lock\n"
    program += f"with exclusive_lock(Path({str(tmp_path)!r})): print('held', flush=True); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        with pytest.raises(UserError, match="another run"), exclusive_lock(tmp_path):
            pass
        holder.kill()
        holder.wait()
        with exclusive_lock(tmp_path):
            pass


def test_a_file_system_without_locks_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def flock(*_: object) -> None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr(fcntl, "flock", flock)
    with (
        pytest.raises(
            UserError, match=f"no locks .Function not implemented.; .* for shards a URL.*: file://{tmp_path}$"
        ),
        exclusive_lock(tmp_path),
    ):
        pass


def test_what_cannot_be_written_is_the_users_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="file: cannot be written"), exclusive_lock(tmp_path / "file"):
        pass
    with (
        pytest.raises(UserError, match=r"file/x: cannot be written .*; do this"),
        writing(tmp_path / "file/x", "do this"),
    ):
        pass
    with pytest.raises(UserError, match=r"x: cannot be written \(No space left"), writing(tmp_path / "x"):
        raise OSError(28, "No space left on device")


def test_the_folder_of_what_is_written_is_made(tmp_path: Path) -> None:
    with writing(tmp_path / "a/b/c.txt"):
        (tmp_path / "a/b/c.txt").touch()


def test_where_a_file_will_be_written_is_checked_ahead_and_left_as_it_is(tmp_path: Path) -> None:
    check_writable(tmp_path / "a" / "b.json")
    assert list((tmp_path / "a").iterdir()) == []
    (tmp_path / "old").write_text("old")
    check_writable(tmp_path / "old")
    assert (tmp_path / "old").read_text() == "old"
    with pytest.raises(UserError, match="a: is a folder; name a file"):
        check_writable(tmp_path / "a")
    with pytest.raises(UserError, match="old/x: cannot be written"):
        check_writable(tmp_path / "old" / "x")


def test_a_directory_is_in_use_while_its_lock_is_held(tmp_path):
    assert not in_use(tmp_path)
    with exclusive_lock(tmp_path):
        assert in_use(tmp_path)
    assert not in_use(tmp_path)


def test_half_a_line_of_a_killed_process_stays_a_line_of_its_own(tmp_path: Path) -> None:
    log = tmp_path / "logs" / "lines.txt"
    append_line(log, "one")
    log.write_text(log.read_text() + "tw")
    append_line(log, "three")
    append_line(log, "four")
    assert log.read_text() == "one\ntw\nthree\nfour\n"
