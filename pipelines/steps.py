"""Running the project's commands one after the other, each as a user would type it."""

import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress

from stage1_proposals.common.errors import UserError

GRACE = 20.0  # seconds that a command has after Ctrl-C to say its last words


def typed(module: str, arguments: Sequence[object]) -> str:
    """The command as a user would type it."""
    return shlex.join(["python", "-m", f"pipelines.{module}", *map(str, arguments)])


def step(title: str, module: str, *arguments: object) -> float:
    """Run one command of this project, showing it as a user would type it.

    Returns:
        The seconds it took.

    Raises:
        UserError: it ended with an exit code other than 0; its own message stands above.
        KeyboardInterrupt: Ctrl-C, of which the command has heard as well, or of which it alone has heard.
    """
    print(f"\n== {title}\n$ {typed(module, arguments)}", flush=True)
    start = time.monotonic()
    check(module, _run([sys.executable, "-m", f"pipelines.{module}", *map(str, arguments)]))
    seconds = time.monotonic() - start
    print(f"== {seconds:.0f} s", flush=True)
    return seconds


def check(module: str, code: int) -> None:
    """Check a command's exit code.

    Raises:
        UserError: it is neither 0 nor that of Ctrl-C.
        KeyboardInterrupt: it is that of Ctrl-C.
    """
    if code == 130:
        raise KeyboardInterrupt
    if code:
        how = f"ended with exit code {code}" if code > 0 else f"was killed ({signal.Signals(-code).name})"
        raise UserError(f"step `{module}` {how}; run the same command again to go on from there")


def _run(words: Sequence[str]) -> int:
    """The exit code of a process, which does not outlive this one's interruption."""
    process = subprocess.Popen(words)
    try:
        return process.wait()
    except KeyboardInterrupt:
        with suppress(subprocess.TimeoutExpired):
            process.wait(GRACE)
        raise
    finally:
        process.kill()
