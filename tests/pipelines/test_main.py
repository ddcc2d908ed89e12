"""The application: exit codes, the one line on stderr, and that commands are loaded only when they run."""

import io
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import click
import pytest

from pipelines.__main__ import COMMANDS, Application, run
from pipelines.options import Command, device_option
from stage1_proposals.common.errors import UserError
from tests.pipelines.command import run_command

ROOT = Path(__file__).parents[2]


def run_function(function: Callable[[], None], *words: str) -> int:
    """The exit code of a command `do` that calls a function."""

    @click.group(cls=Application)
    def application() -> None: ...

    @click.command("do", cls=Command)
    @device_option
    def do(device: str | None) -> None:
        function()

    application.get_command = lambda ctx, name: do  # type: ignore[method-assign]
    return run(application, ["do", *words])


def fail() -> None:
    raise UserError("images: no such folder\n  at all")


def test_success_is_0(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_function(lambda: print("done")) == 0
    assert capsys.readouterr() == ("done\n", "")


def test_a_user_error_is_one_line_and_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_function(fail) == 2
    assert capsys.readouterr() == ("", "error: images: no such folder at all\n")


def test_debug_shows_the_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_function(fail, "--debug") == 2
    error = capsys.readouterr().err
    assert "Traceback" in error
    assert error.endswith("\nerror: images: no such folder at all\n")


@pytest.mark.parametrize("words", [("--debug", "recall"), ("recall", "--debug")])
def test_debug_stands_before_or_after_the_commands_name(
    words: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command(*words, "--labels", tmp_path / "gone.json", "--shards", "gone") == 2
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--device", "tpu"], r"Invalid value for '--device': 'tpu' is not one of 'cpu', 'cuda'\."),
        (["--device"], r"Option '--device' requires an argument\."),
        (["--devise\n", "cpu"], r"No such option '?--devise.*"),
        (["more"], r"Got unexpected extra argument \(more\)"),
    ],
    ids=["choice", "no value", "unknown", "extra"],
)
def test_a_mistyped_option_is_one_line_and_2(
    capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    assert run_function(lambda: None, *words) == 2
    assert re.fullmatch(f"error: {message}\n", capsys.readouterr().err)


def test_a_mistyped_command_is_one_line_and_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command("gossip") == 2
    assert re.fullmatch("error: No such command 'gossip'.*\n", capsys.readouterr().err)


def test_an_interrupt_is_130_and_says_how_to_go_on(capsys: pytest.CaptureFixture[str]) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    assert run_function(interrupt) == 130
    assert "run the same command again" in capsys.readouterr().err


def test_a_bug_is_not_hidden() -> None:
    def crash() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run_function(crash)


def test_file_names_that_no_terminal_can_show_are_printed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with open(tmp_path / "out", "w", encoding="ascii", errors="strict") as out:
        assert isinstance(out, io.TextIOWrapper)
        monkeypatch.setattr(sys, "stdout", out)
        assert run_function(lambda: print("\udcff ü ▇")) == 0
    assert (tmp_path / "out").read_bytes() == b"\\udcff \\xfc \\u2587\n"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("demo --seed -1", "'--seed': -1 is not in the range x>=0."),
        ("demo --count 3 0 3", "'--count': 0 is not in the range x>=1."),
        ("demo --pretrain-epochs 0", "'--pretrain-epochs': 0 is not in the range x>=1."),
        ("demo --finetune-epochs 0", "'--finetune-epochs': 0 is not in the range x>=1."),
        ("data --count 3 3 x", "'--count': 'x' is not a valid integer."),
        ("data --seed -1", "'--seed': -1 is not in the range x>=0."),
        ("proposals --workers -1", "'--workers': -1 is not in the range x>=0."),
        ("proposals --short-side 0", "'--short-side': 0 is not in the range x>=1."),
        ("inspect --seed -1", "'--seed': -1 is not in the range x>=0."),
        ("inspect --sheet -1", "'--sheet': -1 is not in the range x>=0."),
        ("pretrain --epochs 0", "'--epochs': 0 is not in the range x>=1."),
        ("pretrain --image-size 1.5", "'--image-size': '1.5' is not a valid integer."),
        ("finetune --batch-size 0", "'--batch-size': 0 is not in the range x>=1."),
        ("evaluate --workers -1", "'--workers': -1 is not in the range x>=0."),
    ],
)
def test_every_command_refuses_numbers_out_of_range(
    capsys: pytest.CaptureFixture[str], line: str, message: str
) -> None:
    assert run_command(*line.split()) == 2
    assert capsys.readouterr().err == f"error: Invalid value for {message}\n"


@pytest.mark.parametrize("command", ["inspect", "prelabel", "duplicates", "select", "cluster", "pretrain"])
def test_commands_that_read_shards_say_how_to_fetch_those_at_a_url(
    capsys: pytest.CaptureFixture[str], command: str
) -> None:
    assert run_command(command, "--shards", "s3://bucket/shards") == 2
    how = "is a URL; `make fetch SHARDS=s3://bucket/shards TO=shards` brings it to a directory"
    assert capsys.readouterr().err == f"error: --shards s3://bucket/shards: {how}\n"


def test_the_command_line_is_recorded_as_typed() -> None:
    lines: list[list[str]] = []

    def record() -> None:
        lines.append(click.get_current_context().obj)

    assert run_function(record, "--device", "cpu") == 0
    assert lines == [["python", "-m", "pipelines", "do", "--device", "cpu"]]


@pytest.mark.parametrize("name", ["", "proposals", "pretrain", "recall", "select", "predict", "table"])
def test_help_loads_no_heavy_library(name: str) -> None:
    code = (
        f"import sys; from pipelines.__main__ import main; assert main({[*name.split(), '--help']}) == 0; "
        "print({'torch', 'mmdet', 'mmengine', 'ray', 'h5py', 'pandas', 'matplotlib'} & set(sys.modules))"
    )
    ended = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert "Usage: python -m pipelines" in ended.stdout
    assert ended.stdout.splitlines()[-1] == "set()"


def test_the_application_lists_its_commands(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command() == 0
    printed = capsys.readouterr().out
    names = "demo data proposals inspect prelabel fetch duplicates select cluster recall pretrain finetune evaluate"
    for name in (*names.split(), "predict", "draw", "table", "figure", "bench", "report"):
        assert re.search(rf"^  {name} +[A-Z]\w+", printed, re.MULTILINE)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_a_help_page(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(name, "--help") == 0
    assert "--debug" in capsys.readouterr().out
