"""Carrying out several runs at once, each on its share of the cores, with what it prints in a file of its own."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from pipelines import steps
from pipelines.experiments.runs import Run
from pipelines.experiments.workspace import Workspace
from stage1_proposals.common.files import writing

POLL = 0.5  # seconds
LAST_WORDS = 15  # lines of a failed run's output that are shown


@dataclass(frozen=True)
class Going:
    """A run on its way."""

    run: Run
    process: subprocess.Popen[bytes]
    output: Path
    begin: float


def execute(runs: Sequence[Run], workspace: Workspace, jobs: int) -> None:
    """Run what is not finished, up to `jobs` at once, each after what it needs; what was interrupted goes on.

    Raises:
        UserError: a run ended with an exit code other than 0; the others are stopped.
    """
    waiting = [run for run in runs if not workspace.finished(run)]
    print(f"== {len(runs) - len(waiting)} of {len(runs)} runs are finished", flush=True)
    going: list[Going] = []
    try:
        while waiting or going:
            unfinished = {*waiting, *(each.run for each in going)}
            ready = [run for run in waiting if unfinished.isdisjoint(run.needs)]
            for run in ready[: jobs - len(going)]:
                waiting.remove(run)
                going.append(_start(run, workspace, jobs))
            time.sleep(POLL)
            for each in [each for each in going if each.process.poll() is not None]:
                going.remove(each)
                _end(each, workspace)
    except BaseException as error:
        _stop(going, workspace, tell=not isinstance(error, KeyboardInterrupt))
        raise


def _start(run: Run, workspace: Workspace, jobs: int) -> Going:
    arguments = workspace.arguments(run)
    output = workspace.root / "output" / f"{run.name}.txt"
    print(f"\n== {run.name}, its output in {output}\n$ {steps.typed(run.module, arguments)}", flush=True)
    threads = os.environ.get("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // jobs)))
    with writing(output), output.open("ab") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", f"pipelines.{run.module}", *arguments],
            stdout=file,
            stderr=subprocess.STDOUT,
            env={**os.environ, "OMP_NUM_THREADS": threads},
        )
    return Going(run, process, output, time.monotonic())


def _end(each: Going, workspace: Workspace) -> None:
    """Take note of a run that has ended.

    Raises:
        UserError: not well.
        KeyboardInterrupt: it was interrupted.
    """
    code, seconds = each.process.wait(), time.monotonic() - each.begin
    workspace.record(each.run, seconds, finished=code == 0)
    if code:
        print(*each.output.read_text(errors="replace").splitlines()[-LAST_WORDS:], sep="\n", flush=True)
    steps.check(each.run.module, code)
    print(f"== {each.run.name}: {seconds:.0f} s", flush=True)


def _stop(going: Sequence[Going], workspace: Workspace, tell: bool) -> None:
    """Wait for runs that have heard of Ctrl-C, or else are told of it here; end those that do not listen."""
    deadline = time.monotonic() + steps.GRACE
    for each in going:
        if tell:
            each.process.send_signal(signal.SIGINT)
    for each in going:
        with suppress(subprocess.TimeoutExpired):
            each.process.wait(max(0.0, deadline - time.monotonic()))
        each.process.kill()
        workspace.record(each.run, time.monotonic() - each.begin, finished=each.process.wait() == 0)
