"""Carrying runs out one after the other, or only saying which ones they are."""

import time
from collections.abc import Sequence

from pipelines import steps
from pipelines.duration import duration
from pipelines.experiments import side_by_side
from pipelines.experiments.runs import Run
from pipelines.experiments.workspace import JOURNAL, Workspace
from stage1_proposals.common.files import check_writable


def execute(runs: Sequence[Run], workspace: Workspace, jobs: int = 1) -> None:
    """Run what is not finished, in order; what was interrupted goes on.

    Args:
        jobs: runs at once; of several, each prints to a file of its own.

    Raises:
        UserError: a run ended with an exit code other than 0, its own message stands above; or nothing can be written.
    """
    check_writable(workspace.root / JOURNAL)
    if jobs > 1:
        side_by_side.execute(runs, workspace, jobs)
        return
    for number, run in enumerate(runs, 1):
        title = f"{number} of {len(runs)}: {run.name}"
        if workspace.finished(run):
            print(f"== {title}: finished", flush=True)
            continue
        begin, ended_well = time.monotonic(), False
        try:
            steps.step(title, run.module, *workspace.arguments(run))
            ended_well = True
        finally:
            workspace.record(run, time.monotonic() - begin, ended_well)


def print_plan(runs: Sequence[Run], workspace: Workspace) -> None:
    """Print the runs in order: how far they are, how long those to do may take, and their commands."""
    to_do = [run for run in runs if not workspace.finished(run)]
    for number, run in enumerate(runs, 1):
        state = "finished"
        if run in to_do:
            seconds = workspace.expected_seconds(run)
            takes = "time not known" if seconds is None else f"about {duration(seconds)}"
            state = f"{'begun' if workspace.begun(run) else 'to do'}, {takes}"
        print(f"{number:>3}. {run.name}: {state}\n     $ {steps.typed(run.module, workspace.arguments(run))}")
    expected = [workspace.expected_seconds(run) for run in to_do]
    known = [seconds for seconds in expected if seconds is not None]
    print(f"\n{len(runs)} runs, {len(runs) - len(to_do)} of them finished.", end=" ")
    if len(known) < len(to_do):
        print(f"How long {len(to_do) - len(known)} of the others take is not known: nothing like them was run here.")
    elif to_do:
        print(f"The others may take about {duration(sum(known))}, one after the other.")
    else:
        print("Nothing is left to do.")
