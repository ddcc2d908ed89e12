"""A table of the paper at a scale: its runs, and the finished table as JSON, text and Markdown."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipelines.experiments import account
from pipelines.experiments.notes import scale_notes, seed_note, setting_notes
from pipelines.experiments.paper import Table
from pipelines.experiments.results import beside, our_cells, paper_cells, read_scores, rows_at, runs_of
from pipelines.experiments.runs import Run, in_order
from pipelines.experiments.scales import Scale
from pipelines.experiments.workspace import Workspace
from pipelines.text_table import format_table


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
    notes = [
        seed_note(had, seeds),
        *table.notes,
        *scale_notes(asked, scale),
        *setting_notes(had, scale, seeds, workspace),
    ]
    return {
        **account.account(table, scale, notes, runs, workspace, device),
        "heading": [*table.names, *(name.removeprefix("box_") for name in table.scores)],
        "rows": [[*row.names, *our_cells(table, of_row)] for row, of_row in zip(rows, scores, strict=True)],
        "paper": [[*row.names, *paper_cells(row.paper)] for row in rows],
    }


def write(tabulated: dict[str, Any], folder: Path) -> Path:
    """Write `tableN.json` and `tableN.md`; returns the latter.

    Raises:
        UserError: they cannot be written.
    """
    return account.write(tabulated, as_markdown(tabulated), folder / f"table{tabulated['number']}.md")


def as_text(tabulated: dict[str, Any]) -> str:
    """For the terminal."""
    return account.as_text(_title(tabulated), tabulated, _beside(tabulated, markdown=False))


def as_markdown(tabulated: dict[str, Any]) -> str:
    """With all that is needed to repeat it."""
    return account.as_markdown(_title(tabulated), tabulated, _beside(tabulated, markdown=True))


def _title(tabulated: dict[str, Any]) -> str:
    what = f"Table {tabulated['number']}, at {tabulated['scale']} scale: {tabulated['title']}"
    return f"{what} (in percent; the paper's in parentheses)"


def _beside(tabulated: dict[str, Any], markdown: bool) -> str:
    names = tabulated["heading"].index("AP")  # with which the scores begin in every table
    rows = [beside(ours, printed, names) for ours, printed in zip(tabulated["rows"], tabulated["paper"], strict=True)]
    return format_table(tabulated["heading"], rows, markdown, left=names)
