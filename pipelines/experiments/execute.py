"""Executes runs in order, several at once if wanted; what is finished is not run again."""

import json
import time
from collections.abc import Sequence
from contextlib import nullcontext, suppress
from subprocess import Popen
from typing import Any

from pipelines import launch
from pipelines.experiments.plan import Run
from stage1_proposals.common.errors import UserError
from stage1_proposals.common.files import check_writable, write_json, writing

SHOWN_LINES = 15  # of a failed run's output


def state(run: Run) -> dict[str, Any]:
    """`finished` and `seconds` of all starts of a run together, as `record_start` wrote them."""
    with suppress(OSError, ValueError):
        return json.loads((run.root / "runs" / f"{run.name}.json").read_text(encoding="utf-8"))
    return {"finished": False, "seconds": 0.0}


def record_start(run: Run, seconds: float, finished: bool) -> None:
    """Add a start to a run's state. When it failed, its own error counts, not that the file cannot be written."""
    file, total = run.root / "runs" / f"{run.name}.json", round(state(run)["seconds"] + seconds, 1)
    with nullcontext() if finished else suppress(UserError), writing(file):
        write_json(file, {"finished": finished, "seconds": total})


def is_finished(run: Run) -> bool:
    """Whether the run's command has ended well and what it wrote is still there."""
    from stage1_proposals.shards import ShardError, ShardSet  # h5py, which --help does without

    with suppress(ShardError):
        if run.words[0] == "proposals":
            ShardSet.open(run.directory)
        return state(run)["finished"] and (run.result is None or run.result.is_file())
    return False


def execute(runs: Sequence[Run], jobs: int = 1) -> None:
    """Execute the runs that are not finished, each after those that it needs; interrupted ones are resumed.

    With several `jobs` at once, each prints to a file of its own. A run that fails (UserError) stops the others.
    """
    check_writable(runs[0].root / "runs" / "state.json")
    waiting = [run for run in runs if not is_finished(run)]
    print(f"== {len(runs) - len(waiting)} of {len(runs)} runs are finished", flush=True)
    files = {run: run.root / "output" / f"{run.name}.txt" for run in runs if jobs > 1}
    threads = launch.share_of_cores(jobs) if jobs > 1 else None
    active: dict[Run, tuple[Popen[bytes], float]] = {}  # their processes, and when these began
    try:
        while waiting or active:
            ready = [run for run in waiting if not {*waiting, *active} & {*run.after}]
            for run in ready[: jobs - len(active)]:
                waiting.remove(run)
                process = launch.start(run.name, run.words, files.get(run), threads)
                active[run] = process, time.monotonic()
            time.sleep(launch.POLL)
            for run in [run for run, (process, _) in active.items() if process.poll() is not None]:
                process, begin = active.pop(run)
                code, seconds = process.wait(), time.monotonic() - begin
                record_start(run, seconds, finished=code == 0)
                if code and files:
                    print(*files[run].read_text(errors="replace").splitlines()[-SHOWN_LINES:], sep="\n", flush=True)
                launch.check(run.words[0], code)
                print(f"== {run.name}: {seconds:.0f} s", flush=True)
    except BaseException as error:
        # On Ctrl-C the terminal has sent the signal to all processes.
        launch.stop([process for process, _ in active.values()], interrupt=not isinstance(error, KeyboardInterrupt))
        for run, (process, begin) in active.items():
            record_start(run, time.monotonic() - begin, finished=process.wait() == 0)
        raise


def print_plan(runs: Sequence[Run]) -> None:
    """Print the runs in order, how far they are, and their commands."""
    states = ["finished" if is_finished(run) else "started" if run.directory.exists() else "pending" for run in runs]
    for number, (run, how_far) in enumerate(zip(runs, states, strict=True), 1):
        print(f"{number:>3}. {run.name}: {how_far}\n     $ {launch.typed(*run.words)}")
    print(f"\n{len(runs)} runs, {states.count('finished')} of them finished.")
