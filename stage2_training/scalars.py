"""What MMEngine logs of a run, in a file of JSON lines for each start: losses by step, scores by epoch.

Imports neither torch nor MMEngine, for commands that read runs and train none.
"""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from stage2_training.scores import LOGGED, SCORE_NAMES

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
