"""Tables that `make table` left."""

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines.reporting.about import About, read_about, texts
from pipelines.reporting.notes import Notes

NUMBER = re.compile(r"-?\d+(\.\d+)?")
SCORE = re.compile(r"(box |mask )?(AP|AR)")


@dataclass(frozen=True)
class Cell:
    """A cell of a table: ours, the paper's beside it where they differ, and whether ours is among its column's best."""

    text: str
    paper: str
    best: bool
    number: bool


@dataclass(frozen=True)
class Table:
    """A table as the page shows it.

    Attributes:
        rows: of cells; with the paper's in them where its rows are the same as ours.
        paper: the paper's rows, where they are others.
        beside: whether the paper's numbers stand in ours.
    """

    about: About
    heading: list[str]
    rows: list[list[Cell]]
    paper: list[list[str]]
    beside: bool


def read_table(path: Path, notes: Notes) -> Table | None:
    """A table's JSON; None, with a note, when it is none."""
    value = notes.json(path, dict)
    if value is None:
        return None
    with notes.on(path):
        heading, rows = texts(value.get("heading")), _rows(value.get("rows"))
        paper = _rows(value.get("paper") or [])
        if any(len(row) != len(heading) for row in rows):
            raise ValueError("rows are not as long as the heading")
        names = bool(paper) and _alike(rows, paper)
        return Table(
            about=read_about(value, "Table", path, notes),
            heading=heading,
            rows=_cells(heading, rows, paper if names else []),
            paper=[] if names else paper,
            beside=names,
        )
    return None


def _rows(values: Any) -> list[list[str]]:
    if not isinstance(values, list):
        raise ValueError("not a table's JSON: its rows are missing")
    return [texts(row) for row in values]


def _alike(rows: Sequence[Sequence[str]], paper: Sequence[Sequence[str]]) -> bool:
    """Whether the paper's rows are ours: as many, as long, and under the same names."""
    return len(rows) == len(paper) and all(
        len(ours) == len(theirs) and ours[:1] == theirs[:1] for ours, theirs in zip(rows, paper, strict=True)
    )


def _cells(heading: Sequence[str], rows: Sequence[Sequence[str]], paper: Sequence[Sequence[str]]) -> list[list[Cell]]:
    """Rows with the paper's numbers, if any; the best scores are those of rows alike in all names but the last.

    Scores are as good as they are shown: all that share the highest are the best, unless all rows share it.
    """
    names = next((place for place, column in enumerate(zip(*rows, strict=True)) if any(map(NUMBER.match, column))), 0)
    found: dict[tuple[object, ...], list[float]] = defaultdict(list)
    for row in rows:
        for place, text in enumerate(row):
            number = _number(text)
            if number is not None and SCORE.match(heading[place]):
                found[(*row[: max(0, names - 1)], place)].append(number)

    def cell(row: Sequence[str], place: int, theirs: str) -> Cell:
        text, number = row[place], _number(row[place])
        rivals = found[(*row[: max(0, names - 1)], place)]
        best = bool(rivals) and number == max(rivals) > min(rivals)
        return Cell(text, theirs if theirs != text else "", best, number is not None or text in ("", "-"))

    return [
        [cell(row, place, theirs) for place, theirs in enumerate(paper[number] if paper else row)]
        for number, row in enumerate(rows)
    ]


def _number(text: str) -> float | None:
    """What a cell begins with, as `12.3 ± 0.4` does with a mean."""
    found = NUMBER.match(text)
    return float(found[0]) if found else None
