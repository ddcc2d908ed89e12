"""Running commands: one command in several processes, one per GPU; several commands one after the other."""

import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import wraps
from pathlib import Path
from typing import Any

import click

from pipelines.options import POSITIVE
from stage1_proposals.common.errors import UserError
from stage1_proposals.common.files import writing

GRACE = 20.0  # seconds that a command has after Ctrl-C to finish its last message
POLL = 0.1  # seconds between looks at commands that run at once


def one_process_per_gpu(function: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the option `--gpus`: its function then runs in so many processes, and does not get the number.

    The command starts itself again under torchrun, which keeps the processes together. In a process that torchrun
    started, by this decorator or by hand, the function runs as one of them, and `--gpus` has no meaning.

    Raises:
        UserError: fewer GPUs than `--gpus`, or a process was killed.
        SystemExit: the processes' exit code, when it is not 0; they have printed their messages.
        KeyboardInterrupt: after Ctrl-C, when all processes have ended.
    """

    @click.option("--gpus", type=POSITIVE, default=1, help="Processes, one per GPU; with --device cpu, on the CPU.")
    @wraps(function)
    def run(*args: Any, gpus: int, device: str | None, **kwargs: Any) -> None:
        if "TORCHELASTIC_RUN_ID" in os.environ:  # set by torchrun only; others set LOCAL_RANK too
            _join_processes(device, lambda: function(*args, device=device, **kwargs))
        elif gpus == 1:
            function(*args, device=device, **kwargs)
        else:
            from stage2_training.engine.distributed import start_processes

            command_line: list[str] = click.get_current_context().obj
            start_processes(command_line[1:], gpus, device)

    return run


def _join_processes(device: str | None, task: Callable[[], Any]) -> None:
    # The starting process reports Ctrl-C; while this one waits for another, Python's handler would not run.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    from stage1_proposals.common.system import die_with_parent
    from stage2_training.engine.distributed import process_group

    os.environ.setdefault("MKL_NUM_THREADS", os.environ.get("OMP_NUM_THREADS", "1"))  # MMEngine warns without it
    die_with_parent()
    with process_group(device):
        task()


def typed(*words: object) -> str:
    """The command line as a user would type it."""
    return shlex.join(["python", "-m", "pipelines", *map(str, words)])


def step(title: str, command: str, *arguments: object) -> float:
    """Run one command of this project, showing it as a user would type it; returns the seconds it took.

    Raises:
        UserError: it ended with an exit code other than 0; it has printed its own message.
        KeyboardInterrupt: Ctrl-C, whether this process or only the command has received it.
    """
    begin = time.monotonic()
    process = start(title, [command, *map(str, arguments)])
    try:
        code = process.wait()
    finally:
        stop([process], interrupt=False)
    check(command, code)
    seconds = time.monotonic() - begin
    print(f"== {seconds:.0f} s", flush=True)
    return seconds


def steps_at_once(steps: Mapping[str, Sequence[object]], output: Path) -> float:
    """As `step` for several commands at once, each on its share of the cores.

    The first prints to the terminal; what the others print is shown after it, or as soon as one of them fails. A
    command that fails stops the others.

    Args:
        steps: words of each command, by its title.
        output: folder for files with what the others print.
    """
    begin, threads = time.monotonic(), share_of_cores(len(steps))
    numbered = list(enumerate(steps.items(), 1))
    files = {title: output / f"{words[0]}-{number}.txt" for number, (title, words) in numbered[1:]}
    for file in files.values():
        with writing(file):
            file.unlink(missing_ok=True)
    processes: list[subprocess.Popen[bytes]] = []
    interrupt = True
    try:
        for title, words in steps.items():
            processes.append(start(title, list(map(str, words)), files.get(title), threads))
        while None in (codes := [process.poll() for process in processes]) and not any(codes):
            time.sleep(POLL)
    except KeyboardInterrupt:
        interrupt = False  # the terminal has sent the signal to all processes
        raise
    finally:
        stop(processes, interrupt=interrupt)
    for (title, words), code in zip(steps.items(), codes, strict=True):
        if title in files and (code or not any(codes)):
            print(f"\n== {title}\n{files[title].read_text(errors='replace')}", end="", flush=True)
        check(str(words[0]), code or 0)
    seconds = time.monotonic() - begin
    print(f"== {seconds:.0f} s", flush=True)
    return seconds


def share_of_cores(commands: int) -> int:
    """OpenMP threads of each of several commands that run at once."""
    return max(1, (os.cpu_count() or 1) // commands)


def start(
    title: str, words: Sequence[str], output: Path | None = None, threads: int | None = None
) -> subprocess.Popen[bytes]:
    """Start one command of this project, showing it as a user would type it.

    Args:
        output: the file that it appends what it prints to; None: the terminal.
        threads: its number of OpenMP threads, unless the environment sets it.

    Raises:
        UserError: `output` cannot be written.
    """
    where = f", its output in {output}" if output else ""
    print(f"\n== {title}{where}\n$ {typed(*words)}", flush=True)
    command = [sys.executable, "-m", "pipelines", *words]
    environment = {"OMP_NUM_THREADS": str(threads), **os.environ} if threads else os.environ
    if output is None:
        return subprocess.Popen(command, env=environment)
    with writing(output), output.open("ab") as file:
        return subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT, env=environment)


def check(command: str, code: int) -> None:
    """Check a command's exit code, as in `Popen.returncode`.

    Raises:
        UserError: the command failed or was killed.
        KeyboardInterrupt: the command was interrupted by Ctrl-C.
    """
    if code == 130:
        raise KeyboardInterrupt
    if code:
        how = f"ended with exit code {code}" if code > 0 else f"was killed ({signal.Signals(-code).name})"
        raise UserError(f"step `{command}` {how}; run the same command again to resume")


def stop(processes: Sequence[subprocess.Popen[bytes]], *, interrupt: bool) -> None:
    """End processes: interrupt them, unless Ctrl-C has reached them already; kill those that have not ended in time."""
    deadline = time.monotonic() + GRACE
    try:
        for process in processes:
            if interrupt:
                process.send_signal(signal.SIGINT)
        for process in processes:
            with suppress(subprocess.TimeoutExpired):
                process.wait(max(0.0, deadline - time.monotonic()))
    finally:  # also after a second Ctrl-C
        for process in processes:
            process.kill()
            process.wait()
