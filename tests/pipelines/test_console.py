"""Lines, tables, durations, progress bars and quiet imports."""

import gc
import sys
import time
from contextlib import suppress

import pytest

from pipelines.console import duration, format_table, print_lines, progress, track
from stage2_training import quiet_imports


def test_durations_are_for_a_person() -> None:
    assert [duration(s) for s in (0, 99.4, 100, 5_939, 6_000, 7_260)] == [
        *("0 s", "99 s", "2 min", "99 min", "1 h 40 min", "2 h 01 min")
    ]


def test_lines_stay_one_line_each(capsys: pytest.CaptureFixture[str]) -> None:
    print_lines("a\nb", "\x1b[31mü")
    assert capsys.readouterr().out == "a\\nb\n\\x1b[31mü\n"


def test_text_has_its_names_flush_left_and_its_numbers_right() -> None:
    table = format_table(("name", "AP"), [["a", "1.00"], ["longer", "12.00"]], markdown=False, left=1)
    assert table.splitlines() == ["name       AP", "a        1.00", "longer  12.00"]


def test_markdown_says_so_in_its_rule() -> None:
    table = format_table(("name", "AP"), [["a", "1.00"]], markdown=True, left=1)
    assert table.splitlines() == ["| name | AP |", "| --- | ---: |", "| a | 1.00 |"]


def test_progress_is_quiet_where_there_is_no_terminal(capfd: pytest.CaptureFixture[str]) -> None:
    assert list(track("reading", "letters", "ab", 2)) == ["a", "b"]
    assert capfd.readouterr() == ("", "")


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rich takes stderr for a terminal."""
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")


@pytest.mark.usefixtures("terminal")
def test_progress_on_a_terminal_has_speed_and_time_left(capfd: pytest.CaptureFixture[str]) -> None:
    with progress("making proposals", "images", 3) as advance:
        advance(0)
        time.sleep(0.2)
        advance(2)
        time.sleep(0.3)
        advance(1)
    printed = capfd.readouterr().err
    assert "making proposals" in printed
    assert "3/3" in printed
    assert "images/s" in printed
    assert "0:00:0" in printed


@pytest.mark.usefixtures("terminal")
def test_an_error_before_the_first_item_stands_alone(capfd: pytest.CaptureFixture[str]) -> None:
    with suppress(ValueError), progress("making proposals", "images", 3) as advance:
        advance(0)
        raise ValueError
    assert capfd.readouterr() == ("", "")


def test_imports_are_quiet_and_output_comes_back(capsys: pytest.CaptureFixture[str]) -> None:
    with quiet_imports():
        print("a library's remark")
    print("ours", file=sys.stdout)
    assert capsys.readouterr().out == "ours\n"


def test_first_imports_are_kept_from_the_garbage_collector_which_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    with quiet_imports():
        pass
    assert gc.isenabled()
    frozen = gc.get_freeze_count()
    with quiet_imports():
        assert gc.isenabled()
    assert gc.get_freeze_count() <= frozen
    monkeypatch.delitem(sys.modules, "mmdet.evaluation")
    with quiet_imports():
        assert not gc.isenabled()
        imported: list[list[int]] = [[]]
    assert gc.isenabled()
    assert gc.get_freeze_count() > frozen
    assert not any(one is imported for one in gc.get_objects())
