"""Tables and figures that `make table` and `make figure` left."""

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines.duration import duration
from pipelines.reporting.notes import Notes
from pipelines.reporting.pictures import Album

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
        runs: its runs' names on the page.
    """

    title: str
    heading: list[str]
    rows: list[list[Cell]]
    paper: list[list[str]]
    notes: list[str]
    beside: bool
    commands: list[str]
    runs: list[str]


def read_table(path: Path, notes: Notes) -> Table | None:
    """A table's JSON; None, with a note, when it is none."""
    value = notes.json(path, dict)
    if value is None:
        return None
    with notes.on(path):
        heading, rows = _texts(value.get("heading")), _rows(value.get("rows"))
        paper = _rows(value.get("paper") or [])
        if any(len(row) != len(heading) for row in rows):
            raise ValueError("rows are not as long as the heading")
        names = bool(paper) and _alike(rows, paper)
        number, scale = value.get("number"), value.get("scale")
        title = f"Table {number}: " if number is not None else ""
        return Table(
            title=f"{title}{value.get('title') or path.stem}" + (f" ({scale} scale)" if scale else ""),
            heading=heading,
            rows=_cells(heading, rows, paper if names else []),
            paper=[] if names else paper,
            beside=names,
            notes=[*_texts(value.get("notes") or []), *_made(value)],
            commands=_texts(value.get("commands") or []),
            # They are relative to the folder that the tables' folder is in.
            runs=[notes.shown(path.parent.parent / run) for run in _texts(value.get("runs") or [])],
        )
    return None


def _texts(values: Any) -> list[str]:
    if not isinstance(values, list):
        raise ValueError("not a table's JSON: a list is missing")
    return [str(value) for value in values]


def _rows(values: Any) -> list[list[str]]:
    if not isinstance(values, list):
        raise ValueError("not a table's JSON: its rows are missing")
    return [_texts(row) for row in values]


def _made(value: dict[str, Any]) -> list[str]:
    seconds, machine = value.get("seconds"), value.get("machine")
    took = [f"Took {duration(seconds)}."] if isinstance(seconds, int | float) else []
    return [*took, *([f"Made on {machine}."] if machine else [])]


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


@dataclass(frozen=True)
class Figure:
    """A picture, and the numbers beside it: rows of a name and a value per heading."""

    name: str
    picture: str | None
    heading: list[str]
    rows: list[list[str]]


def read_figure(path: Path, notes: Notes, album: Album) -> Figure:
    value = notes.json(path.with_suffix(".json"), object)
    heading, rows = _grid(value)
    return Figure(notes.shown(path), album.picture(path), heading, rows)


def _grid(value: Any) -> tuple[list[str], list[list[str]]]:
    """`{name: {what: number}}` as a table; other JSON is not for the page."""
    if not (isinstance(value, dict) and value and all(isinstance(inner, dict) for inner in value.values())):
        return [], []
    numbers = {
        name: {key: number for key, number in inner.items() if type(number) in (int, float)}
        for name, inner in value.items()
    }
    heading = list(dict.fromkeys(key for inner in numbers.values() for key in inner))
    rows = [
        [str(name), *(_shown(inner[key]) if key in inner else "-" for key in heading)]
        for name, inner in numbers.items()
    ]
    return (["", *heading], rows) if heading else ([], [])


def _shown(number: float) -> str:
    return f"{number:,}" if isinstance(number, int) else f"{number:.4g}"
