"""A table of the paper at a scale: its runs, and the finished table as JSON, text and Markdown."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipelines import steps
from pipelines.benchmarks import machine
from pipelines.duration import duration
from pipelines.experiments.notes import scale_notes, seed_note, setting_notes
from pipelines.experiments.paper import Table
from pipelines.experiments.results import beside, our_cells, paper_cells, read_scores, rows_at, runs_of
from pipelines.experiments.runs import Run, in_order
from pipelines.experiments.scales import Scale
from pipelines.experiments.workspace import Workspace
from pipelines.text_table import format_table
from stage1_proposals.directory import writing
from stage1_proposals.shards import write_json


def table_runs(table: Table, scale: Scale, seeds: Sequence[int]) -> list[Run]:
    """All runs of a table, what is needed first, a seed after the other: so the first gives a whole table early."""
    return in_order(run for seed in seeds for row in rows_at(table, scale) for run in runs_of(row, scale, [seed]))


def tabulate(table: Table, scale: Scale, seeds: Sequence[int], workspace: Workspace, device: str) -> dict[str, Any]:
    """The finished table in plain values: `rows` are ours, `paper` the paper's, under one `heading`; in percent.

    Args:
        device: that the runs ran on.
    """
    rows, runs = rows_at(table, scale), table_runs(table, scale, seeds)
    scores = [[read_scores(run, workspace) for run in runs_of(row, scale, seeds)] for row in rows]
    asked = [row.asked for row in table.rows if row.asked]
    had = [row.asked for row in rows if row.asked]
    seconds = workspace.seconds()
    return {
        "title": table.title,
        "number": table.number,
        "scale": scale.name,
        "heading": [*table.names, *(name.removeprefix("box_") for name in table.scores)],
        "rows": [[*row.names, *our_cells(table, of_row)] for row, of_row in zip(rows, scores, strict=True)],
        "paper": [[*row.names, *paper_cells(row.paper)] for row in rows],
        "notes": [
            seed_note(seeds),
            *table.notes,
            *scale_notes(asked, scale),
            *setting_notes(had, scale, seeds[0], workspace),
        ],
        "runs": [str(workspace.directory(run).relative_to(workspace.root)) for run in runs if run.output],
        "commands": [steps.typed(run.module, workspace.arguments(run)) for run in runs],
        "machine": machine.describe(device),
        "seconds": round(sum(seconds.get(run.name, 0) for run in runs)),
    }


def write(tabulated: dict[str, Any], folder: Path) -> Path:
    """Write `tableN.json` and `tableN.md`; returns the latter.

    Raises:
        UserError: they cannot be written.
    """
    path = folder / f"table{tabulated['number']}.md"
    with writing(path):
        write_json(path.with_suffix(".json"), tabulated)
        path.write_text(as_markdown(tabulated), encoding="utf-8")
    return path


def as_text(tabulated: dict[str, Any]) -> str:
    """For the terminal."""
    notes = "\n".join(f"- {note}" for note in tabulated["notes"])
    return f"{_title(tabulated)}\n\n{_beside(tabulated, markdown=False)}\n\n{notes}"


def as_markdown(tabulated: dict[str, Any]) -> str:
    """With all that is needed to repeat it."""
    commands = "\n".join(tabulated["commands"])
    notes = "\n".join(f"- {note}" for note in tabulated["notes"])
    took = duration(tabulated["seconds"])
    made = f"Made on {tabulated['machine']}; the runs took {took}, added up."
    return (
        f"## {_title(tabulated)}\n\n{_beside(tabulated, markdown=True)}\n\n{notes}\n\n{made}\n\n"
        f"```sh\n{commands}\n```\n"
    )


def _title(tabulated: dict[str, Any]) -> str:
    what = f"Table {tabulated['number']}, at {tabulated['scale']} scale: {tabulated['title']}"
    return f"{what} (in percent; the paper's in parentheses)"


def _beside(tabulated: dict[str, Any], markdown: bool) -> str:
    names = tabulated["heading"].index("AP")  # with which the scores begin in every table
    rows = [beside(ours, printed, names) for ours, printed in zip(tabulated["rows"], tabulated["paper"], strict=True)]
    return format_table(tabulated["heading"], rows, markdown, left=names)
