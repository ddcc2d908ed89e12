"""Executes runs in order, several at once if wanted; what is finished is not run again."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from pipelines import launch
from pipelines.demo_data import demo_set
from pipelines.experiments.plan import Run
from stage1_proposals.common.errors import UserError
from stage1_proposals.common.files import check_writable, write_json, writing

POLL = 0.1  # seconds
SHOWN_LINES = 15  # of the output of a failed run
# What a command writes last, in the directory of its run.
LAST_FILES = {"data": demo_set.STAMP, "pretrain": "finished.json", "finetune": "finished.json"}


@dataclass(frozen=True)
class Workspace:
    """The directory of a scale, and what its runs run on, which does not change what they are.

    Holds `runs/NAME`, the directory of each run; `runs/NAME.json`, whether it is finished and how long it took;
    `tables` and `figures`.

    Attributes:
        root: the directory.
        device: `cpu` or `cuda`; None: the GPU if there is one.
        gpus: processes of training.
        batch_size: images of a process at a time; None: the schedule's.
    """

    root: Path
    device: str | None = None
    gpus: int = 1
    batch_size: int | None = None

    def directory(self, run: Run) -> Path:
        return self.root / "runs" / run.name

    def arguments(self, run: Run) -> list[str]:
        """The words after the command's name."""
        words = [word if isinstance(word, str) else str(self.directory(word.run) / word.path) for word in run.arguments]
        output = [run.output, str(self.directory(run) / run.file)] if run.output else []
        device = self.device_arguments if run.command != "data" else []
        training = []
        if run.command in ("pretrain", "finetune"):
            training = ["--gpus", str(self.gpus)] if self.gpus > 1 else []
            training += ["--batch-size", str(self.batch_size)] if self.batch_size else []
        return [*words, *output, *device, *training]

    @property
    def device_arguments(self) -> list[str]:
        return ["--device", self.device] if self.device else []

    def command_line(self, run: Run) -> str:
        return launch.typed(run.command, self.arguments(run))

    def state(self, run: Run) -> dict[str, Any]:
        """`finished` and `seconds` of all its starts together, as `record` wrote them."""
        with suppress(OSError, ValueError):
            return json.loads(self._state_file(run).read_text(encoding="utf-8"))
        return {"finished": False, "seconds": 0.0}

    def finished(self, run: Run) -> bool:
        """Whether the run's command has ended well and what it wrote is still there."""
        return self.state(run)["finished"] and self._is_complete(run)

    def _is_complete(self, run: Run) -> bool:
        from stage1_proposals.shards import ShardError, ShardSet

        if run.output is None:
            return True
        if run.command != "proposals":
            return (self.directory(run) / (run.file or LAST_FILES[run.command])).is_file()
        with suppress(ShardError):
            ShardSet.open(self.directory(run))
            return True
        return False

    def record(self, run: Run, seconds: float, finished: bool) -> None:
        """Record a start of a run.

        Raises:
            UserError: the file cannot be written after a successful start; after others, their own error counts.
        """
        state = {"finished": finished, "seconds": round(self.state(run)["seconds"] + seconds, 1)}
        with nullcontext() if finished else suppress(UserError), writing(self._state_file(run)):
            write_json(self._state_file(run), state)

    def _state_file(self, run: Run) -> Path:
        return self.directory(run).with_name(f"{run.name}.json")


@dataclass(frozen=True)
class Job:
    """A run in progress; `output` is its file, None: the terminal."""

    run: Run
    process: subprocess.Popen[bytes]
    output: Path | None
    start: float


def execute(runs: Sequence[Run], workspace: Workspace, jobs: int = 1) -> None:
    """Execute the runs that are not finished, each after its dependencies; interrupted ones are resumed.

    Args:
        runs: in an order in which dependencies come first.
        jobs: runs at once; with several, each prints to a file of its own.

    Raises:
        UserError: a run failed, and the others were stopped; or the workspace cannot be written.
    """
    check_writable(workspace.root / "runs" / "state.json")
    waiting = [run for run in runs if not workspace.finished(run)]
    print(f"== {len(runs) - len(waiting)} of {len(runs)} runs are finished", flush=True)
    active: list[Job] = []
    try:
        while waiting or active:
            unfinished = {*waiting, *(job.run for job in active)}
            ready = [run for run in waiting if unfinished.isdisjoint(run.dependencies)]
            for run in ready[: jobs - len(active)]:
                waiting.remove(run)
                active.append(_start(run, workspace, jobs))
            time.sleep(POLL)
            for job in [job for job in active if job.process.poll() is not None]:
                active.remove(job)
                _end(job, workspace)
    except BaseException as error:
        # On Ctrl-C the terminal has sent the signal to all processes.
        _stop(active, workspace, interrupt=not isinstance(error, KeyboardInterrupt))
        raise


def start_process(words: Sequence[str], output: IO[bytes] | None, threads: int | None) -> subprocess.Popen[bytes]:
    """Start a command; `threads` is its number of OpenMP threads, unless the environment sets it."""
    environment = os.environ if threads is None else {"OMP_NUM_THREADS": str(threads), **os.environ}
    errors = None if output is None else subprocess.STDOUT
    return subprocess.Popen([sys.executable, "-m", "pipelines", *words], stdout=output, stderr=errors, env=environment)


def _start(run: Run, workspace: Workspace, jobs: int) -> Job:
    words, command = [run.command, *workspace.arguments(run)], workspace.command_line(run)
    if jobs == 1:
        print(f"\n== {run.name}\n$ {command}", flush=True)
        return Job(run, start_process(words, None, None), None, time.monotonic())
    output = workspace.root / "output" / f"{run.name}.txt"
    print(f"\n== {run.name}, its output in {output}\n$ {command}", flush=True)
    with writing(output), output.open("ab") as file:
        process = start_process(words, file, max(1, (os.cpu_count() or 1) // jobs))
    return Job(run, process, output, time.monotonic())


def _end(job: Job, workspace: Workspace) -> None:
    """Record a run that has ended; raises as `launch.check` when it failed."""
    code, seconds = job.process.wait(), time.monotonic() - job.start
    workspace.record(job.run, seconds, finished=code == 0)
    if code and job.output:
        print(*job.output.read_text(errors="replace").splitlines()[-SHOWN_LINES:], sep="\n", flush=True)
    launch.check(job.run.command, code)
    print(f"== {job.run.name}: {seconds:.0f} s", flush=True)


def _stop(active: Sequence[Job], workspace: Workspace, interrupt: bool) -> None:
    """Interrupt runs if they have not been, wait for them to end, and kill those that do not."""
    deadline = time.monotonic() + launch.GRACE
    for job in active:
        if interrupt:
            job.process.send_signal(signal.SIGINT)
    for job in active:
        with suppress(subprocess.TimeoutExpired):
            job.process.wait(max(0.0, deadline - time.monotonic()))
        job.process.kill()
        workspace.record(job.run, time.monotonic() - job.start, finished=job.process.wait() == 0)


def print_plan(runs: Sequence[Run], workspace: Workspace) -> None:
    """Print the runs in order, how far they are, and their commands."""
    finished = [run for run in runs if workspace.finished(run)]
    for number, run in enumerate(runs, 1):
        state = "finished" if run in finished else "started" if workspace.directory(run).exists() else "pending"
        print(f"{number:>3}. {run.name}: {state}\n     $ {workspace.command_line(run)}")
    print(f"\n{len(runs)} runs, {len(finished)} of them finished.")
