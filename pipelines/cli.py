"""What every command shares: `--debug`, one clear line and exit code 2 for user errors."""

import argparse
import io
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout, suppress
from pathlib import Path
from typing import NoReturn

from stage1_proposals.common.errors import UserError
from stage1_proposals.common.system import configure_process

configure_process()  # here, since command modules import this one before PyTorch


def on_one_line(name: str) -> str:
    """A file name for the terminal: what could break the line, colour it or turn it around is written as its code."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in name)


class Parser(argparse.ArgumentParser):
    """argparse with one line for what was mistyped; `--help` shows the usage."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, _error_line(message))


def at_least(lowest: int) -> Callable[[str], int]:
    """An argparse type: an integer from `lowest` up."""

    def parse(text: str) -> int:
        with suppress(ValueError):
            if int(text) >= lowest:
                return int(text)
        raise argparse.ArgumentTypeError(f"{text!r} is no integer from {lowest} up")

    return parse


def share(text: str) -> float:
    """An argparse type: a number from 0 to 1."""
    with suppress(ValueError):
        if 0 <= float(text) <= 1:
            return float(text)
    raise argparse.ArgumentTypeError(f"{text!r} is no number from 0 to 1")


def shard_directory(text: str) -> Path:
    """An argparse type: a directory, for what reads shards row by row."""
    if "://" in text:
        raise argparse.ArgumentTypeError(f"is a URL; `make fetch SHARDS={text} TO=shards` brings it to a directory")
    return Path(text)


def run(
    main: Callable[[argparse.Namespace], None], parser: argparse.ArgumentParser, argv: Sequence[str] | None = None
) -> int:
    """Parse `argv`, call `main` and return the process's exit code.

    `main` gets what was typed as well, as `args.command`: `python -m pipelines.NAME --option ...`, a list of words.

    Returns 0 when `main` returns, 2 with one line on stderr when it raises `UserError` (with `--debug`: the
    traceback as well), 130 after Ctrl-C. Any other exception is a fault of ours and propagates.

    Raises:
        SystemExit: 2 with one line on stderr, when `argv` is mistyped; 0 after `--help`.
    """
    parser.add_argument("--debug", action="store_true", help="show the traceback of a user error too")
    args = parser.parse_args(argv)
    args.command = [*parser.prog.split(), *(sys.argv[1:] if argv is None else argv)]
    # File names need not be UTF-8, nor terminals.
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        main(args)
    except UserError as error:
        if args.debug:
            traceback.print_exc()
        print(_error_line(str(error)), end="", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nInterrupted; run the same command again to go on.", file=sys.stderr)
        return 130
    return 0


def _error_line(message: str) -> str:
    return f"error: {on_one_line(' '.join(message.split()))}\n"


@contextmanager
def quiet_imports() -> Iterator[None]:
    """Import MMDetection without its remarks on optional packages."""
    with redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import mmdet.evaluation  # noqa: F401

        yield
