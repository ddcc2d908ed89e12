"""Figures that `make figure` left, and pictures that `make draw` did."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines.reporting.about import About, read_about, texts
from pipelines.reporting.notes import Notes
from pipelines.reporting.pictures import Album


@dataclass(frozen=True)
class Picture:
    """A picture as a `data:` address, and the numbers beside it: rows of a name and a value per heading."""

    name: str
    data: str | None
    heading: list[str]
    rows: list[list[str]]


@dataclass(frozen=True)
class Figure:
    """Pictures under what is said of them; a picture of which nothing is said is under its name."""

    about: About
    pictures: list[Picture]


def read_figures(abouts: Sequence[Path], pictures: Sequence[Path], notes: Notes, album: Album) -> list[Figure]:
    """All figures, those first of which something is said.

    Args:
        abouts: JSON that says which pictures beside it are a figure; with a note, those that are none.
        pictures: all there are; others are not shown, whatever a JSON says.
    """
    figures, left = [], list(pictures)
    for path in abouts:
        value = notes.json(path, dict)
        if value is not None:
            with notes.on(path):
                about, names = read_about(value, "Figure", path, notes), texts(value.get("pictures"))
                shown = [picture for picture in left if picture.parent == path.parent and picture.name in names]
                if not shown:
                    raise ValueError("its pictures have gone")
                left = [picture for picture in left if picture not in shown]
                figures.append(Figure(about, [_read_picture(picture, notes, album) for picture in shown]))
    alone = [Figure(About(notes.shown(path), [], [], []), [_read_picture(path, notes, album)]) for path in left]
    return [*figures, *alone]


def _read_picture(path: Path, notes: Notes, album: Album) -> Picture:
    heading, rows = _grid(notes.json(path.with_suffix(".json"), object))
    return Picture(notes.shown(path), album.picture(path), heading, rows)


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
