"""Exit codes, and the one line on stderr."""

import argparse
import importlib
import io
import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines import cli
from stage1_proposals.common.errors import UserError


def run(main: Callable[[argparse.Namespace], None], *argv: str) -> int:
    parser = cli.Parser()
    parser.add_argument("--device", choices=["cpu", "cuda"])
    return cli.run(main, parser, argv)


def fail(args: argparse.Namespace) -> None:
    raise UserError("images: no such folder\n  at all")


def test_success_is_0(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(lambda args: print("done")) == 0
    assert capsys.readouterr() == ("done\n", "")


def test_a_user_error_is_one_line_and_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(fail) == 2
    assert capsys.readouterr() == ("", "error: images: no such folder at all\n")


def test_debug_brings_the_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(fail, "--debug") == 2
    error = capsys.readouterr().err
    assert "Traceback" in error
    assert error.endswith("\nerror: images: no such folder at all\n")


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--device", "tpu"], r"argument --device: invalid choice: 'tpu' \(choose from '?cpu'?, '?cuda'?\)"),
        (["--device"], "argument --device: expected one argument"),
        (["--devise\n", "cpu"], "unrecognized arguments: --devise cpu"),
    ],
    ids=["choice", "no value", "unknown"],
)
def test_a_mistyped_option_is_one_line_and_2(capsys: pytest.CaptureFixture[str], argv: list[str], message: str) -> None:
    with pytest.raises(SystemExit) as exit_:
        run(lambda args: None, *argv)
    assert exit_.value.code == 2
    assert re.fullmatch(f"error: {message}\n", capsys.readouterr().err)


def test_an_interrupt_is_130_and_says_how_to_go_on(capsys: pytest.CaptureFixture[str]) -> None:
    def interrupt(args: argparse.Namespace) -> None:
        raise KeyboardInterrupt

    assert run(interrupt) == 130
    assert "run the same command again" in capsys.readouterr().err


def test_a_fault_of_ours_is_not_hidden() -> None:
    def crash(args: argparse.Namespace) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run(crash)


def test_file_names_that_no_terminal_can_show_are_printed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with open(tmp_path / "out", "w", encoding="ascii", errors="strict") as out:
        assert isinstance(out, io.TextIOWrapper)
        monkeypatch.setattr(sys, "stdout", out)
        assert run(lambda args: print("\udcff ü ▇")) == 0
    assert (tmp_path / "out").read_bytes() == b"\\udcff \\xfc \\u2587\n"


def test_imports_are_quiet_and_output_comes_back(capsys: pytest.CaptureFixture[str]) -> None:
    with cli.quiet_imports():
        print("a library's remark")
    print("ours", file=sys.stdout)
    assert capsys.readouterr().out == "ours\n"


@given(lowest=st.integers(-5, 5), number=st.integers())
def test_numbers_are_integers_from_the_lowest_up(lowest: int, number: int) -> None:
    parse = cli.at_least(lowest)
    if number >= lowest:
        assert parse(str(number)) == number
    for text in ("x", "1.5", "", str(min(number, lowest - 1))):
        with pytest.raises(argparse.ArgumentTypeError, match=f"'{text}' is no integer from {lowest} up"):
            parse(text)


@pytest.mark.parametrize(
    ("command", "argv", "message"),
    [
        ("demo", "--seed -1", "--seed: '-1' is no integer from 0 up"),
        ("demo", "--images 3 0 3", "--images: '0' is no integer from 1 up"),
        ("demo", "--pretrain-epochs 0", "--pretrain-epochs: '0' is no integer from 1 up"),
        ("demo", "--finetune-epochs 0", "--finetune-epochs: '0' is no integer from 1 up"),
        ("prepare_data", "--dataset demo --images 3 3 x", "--images: 'x' is no integer from 1 up"),
        ("prepare_data", "--dataset demo --seed -1", "--seed: '-1' is no integer from 0 up"),
        ("proposals", "--images a --shards b --workers -1", "--workers: '-1' is no integer from 0 up"),
        ("proposals", "--images a --shards b --short-side 0", "--short-side: '0' is no integer from 1 up"),
        ("inspect_shards", "--shards b --seed -1", "--seed: '-1' is no integer from 0 up"),
        ("inspect_shards", "--shards b --images -1", "--images: '-1' is no integer from 0 up"),
        ("pretrain", "--shards b --epochs 0", "--epochs: '0' is no integer from 1 up"),
        ("finetune", "--dataset demo --batch-size 0", "--batch-size: '0' is no integer from 1 up"),
        ("evaluate", "--workers -1", "--workers: '-1' is no integer from 0 up"),
    ],
)
def test_every_command_refuses_numbers_out_of_range(
    capsys: pytest.CaptureFixture[str], command: str, argv: str, message: str
) -> None:
    module = importlib.import_module(f"pipelines.{command}")
    with pytest.raises(SystemExit, match="2"):
        module.build_parser().parse_args(argv.split())
    assert capsys.readouterr().err == f"error: argument {message}\n"


@pytest.mark.parametrize("command", ["inspect_shards", "duplicates", "cluster", "pretrain"])
def test_commands_that_read_shards_say_how_to_fetch_those_at_a_url(
    capsys: pytest.CaptureFixture[str], command: str
) -> None:
    parser = importlib.import_module(f"pipelines.{command}").build_parser()
    assert parser.parse_args(["--shards", "shards"]).shards == Path("shards")
    with pytest.raises(SystemExit, match="2"):
        parser.parse_args(["--shards", "s3://bucket/shards"])
    how = "is a URL; `make fetch SHARDS=s3://bucket/shards TO=shards` brings it to a directory"
    assert capsys.readouterr().err == f"error: argument --shards: {how}\n"


def test_what_was_typed_is_given_on(monkeypatch: pytest.MonkeyPatch) -> None:
    commands: list[list[str]] = []
    for argv in (["--name", "a b"], None):
        parser = cli.Parser(prog="python -m pipelines.something")
        parser.add_argument("--name")
        monkeypatch.setattr(sys, "argv", ["/somewhere/pipelines/something.py", "--name=c"])
        assert cli.run(lambda args: commands.append(args.command), parser, argv) == 0
    assert commands == [
        ["python", "-m", "pipelines.something", "--name", "a b"],
        ["python", "-m", "pipelines.something", "--name=c"],
    ]
