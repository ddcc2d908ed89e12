"""COCO's scores: their names, and the scores as text. Imports nothing, for commands that print them."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

METRIC = "coco"
LOGGED = f"{METRIC}/"  # what logs put before these names
AP_NAMES = ("AP", "AP50", "AP75", "AP_S", "AP_M", "AP_L")
RECALL = "AR@20"  # of class-agnostic evaluation alone
PREFIXES = {"mask": "", "box": "box_"}
PLURALS = {"mask": "masks", "box": "boxes"}
SCORE_NAMES = tuple(prefix + name for prefix in PREFIXES.values() for name in AP_NAMES)


def format_scores(scores: Mapping[str, float]) -> str:
    """A line of names, and one each for masks and boxes in percent; `-` where there are no objects of that size.

    Runs made before boxes were evaluated have no line for them.
    """
    names = [name for name in (*AP_NAMES, RECALL) if name in scores]
    rows = [("", names)]
    rows += [
        (PLURALS[kind], percents(scores, names, prefix))
        for kind, prefix in PREFIXES.items()
        if prefix + names[0] in scores
    ]
    return "\n".join(label.ljust(5) + "".join(cell.rjust(7) for cell in cells) for label, cells in rows)


def percents(scores: Mapping[str, float], names: Sequence[str], prefix: str = "") -> list[str]:
    """Scores in percent; `-` where there are no objects of that size."""
    values = [scores[prefix + name] for name in names]
    return ["-" if value < 0 else f"{100 * value:.1f}" for value in values]


LARGEST = 1e30  # what is more, or no number, is no value

Row = dict[str, float]
# One point of a curve: `epoch` and the values of SCORE_NAMES; where boxes were not evaluated, those of masks.
Point = dict[str, Any]


def read_scalars(run: Path) -> list[list[Row]]:
    """Each start's lines, in order, with their numbers alone; half lines, of a killed run, and foreign ones are not."""
    return [list(_rows(file)) for file in sorted(run.glob("*/vis_data/scalars.json"))]


def _rows(file: Path) -> Iterator[Row]:
    for line in file.read_text(errors="replace").splitlines():
        try:
            row: Any = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(row, dict):
            row = {k: v for k, v in row.items() if isinstance(v, int | float) and abs(v) < LARGEST}
            if row.get("step", 0) > 0:
                yield row


def learning_curve(starts: Sequence[Sequence[Row]]) -> list[Point]:
    """The evaluations in `read_scalars`' lines, one point per epoch, in order.

    Where two starts evaluated the same epoch, the later one counts.
    """
    points: dict[int, Point] = {}
    for row in (row for rows in starts for row in rows):
        scores = {name: row[LOGGED + name] for name in SCORE_NAMES if LOGGED + name in row}
        if scores:
            epoch = int(row["step"])
            points[epoch] = {"epoch": epoch, **scores}
    return [points[epoch] for epoch in sorted(points)]


def read_curve(run: str | Path) -> list[Point]:
    """A run's `learning_curve`."""
    return learning_curve(read_scalars(Path(run)))
