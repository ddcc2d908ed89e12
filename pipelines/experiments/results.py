"""A table's numbers: read from its runs, averaged over seeds, beside the paper's."""

import json
from collections.abc import Mapping, Sequence
from statistics import fmean, stdev

from pipelines.experiments.paper import Numbers, Row, Table
from pipelines.experiments.plan import run_of
from pipelines.experiments.runs import Run
from pipelines.experiments.scales import Scale
from pipelines.experiments.workspace import Workspace

NOTHING = "-"


def rows_at(table: Table, scale: Scale) -> list[Row]:
    """The rows that a scale can have, and those that nothing here gives."""
    return [row for row in table.rows if row.asked is None or scale.lacks(row.asked) is None]


def runs_of(row: Row, scale: Scale, seeds: Sequence[int]) -> list[Run]:
    """The runs that give a row's numbers, one per seed; none where nothing here does."""
    return [] if row.asked is None else [run_of(row.asked, scale, seed) for seed in seeds]


def read_scores(run: Run, workspace: Workspace) -> Mapping[str, float]:
    """What a finished run says of itself: its scores in [0, 1], -1 where there are no such objects."""
    return json.loads((workspace.directory(run) / run.proof).read_text(encoding="utf-8"))


def our_cells(table: Table, scores: Sequence[Mapping[str, float]]) -> list[str]:
    """A row's cells, from the scores of its runs."""
    return [mean_and_spread([each[name] for each in scores]) for name in table.scores]


def mean_and_spread(values: Sequence[float]) -> str:
    """Mean and sample standard deviation of values in [0, 1], in percent; of one value it alone; of none, `-`.

    A value below 0 stands for no objects, in every run or in none.
    """
    if not values or min(values) < 0:
        return NOTHING
    mean = f"{100 * fmean(values):.1f}"
    return f"{mean} ± {100 * stdev(values):.1f}" if len(values) > 1 else mean


def paper_cells(paper: Numbers) -> list[str]:
    return [NOTHING if number is None else f"{number:.1f}" for number in paper]


def beside(ours: Sequence[str], paper: Sequence[str], names: int) -> list[str]:
    """A row for the eye: the first `names` cells, then each number with the paper's in parentheses."""
    pairs = zip(ours[names:], paper[names:], strict=True)
    return [*ours[:names], *(f"{number} ({printed})" for number, printed in pairs)]
