"""COCO's scores: their names, their text, and a run's scores as MMEngine logs them.

Imports neither torch nor MMEngine, so that commands can print scores at once.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

METRIC = "coco"
LOGGED = f"{METRIC}/"  # prefix of these names in logs
AP_NAMES = ("AP", "AP50", "AP75", "AP_S", "AP_M", "AP_L")
CLASS_AP = "AP of "  # and the class's name; where there are several classes
RECALL = "AR@20"  # of class-agnostic evaluation alone
PREFIXES = {"mask": "", "box": "box_"}
PLURALS = {"mask": "masks", "box": "boxes"}
SCORE_NAMES = tuple(prefix + name for prefix in PREFIXES.values() for name in AP_NAMES)
MAX_VALUE = 1e30  # what is larger, or not a number, is no value

Row = dict[str, float]
# A point of a learning curve: `epoch`, the values of SCORE_NAMES, and the AP of each class; those of masks or of boxes
# alone where the others were not evaluated.
Point = dict[str, Any]


def format_scores(scores: Mapping[str, float]) -> str:
    """A line of names, and a line each for masks and boxes in percent; `-` where there are no objects of that size.

    Boxes have no line in runs that did not evaluate them, nor masks in those of detectors that predict none.
    """
    kinds = {kind: prefix for kind, prefix in PREFIXES.items() if f"{prefix}AP" in scores}
    names = [name for name in (*AP_NAMES, RECALL) if all(prefix + name in scores for prefix in kinds.values())]
    rows = [("", names)]
    rows += [(PLURALS[kind], percents(scores, names, prefix)) for kind, prefix in kinds.items()]
    return "\n".join(label.ljust(5) + "".join(cell.rjust(7) for cell in cells) for label, cells in rows)


def class_scores(scores: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """The AP of each class by its name, in the classes' order: of masks as `AP`, of boxes as `box_AP`.

    Empty where there is but one class, or classes do not count.
    """
    found: dict[str, dict[str, float]] = {}
    for prefix in PREFIXES.values():
        start = prefix + CLASS_AP
        for name, value in scores.items():
            if name.startswith(start):
                found.setdefault(name.removeprefix(start), {})[f"{prefix}AP"] = value
    return found


def percents(scores: Mapping[str, float], names: Sequence[str], prefix: str = "") -> list[str]:
    """Scores in percent; `-` where there are no objects of that size."""
    values = [scores[prefix + name] for name in names]
    return ["-" if value < 0 else f"{100 * value:.1f}" for value in values]


def read_scalars(run: Path) -> list[list[Row]]:
    """The numbers that a run has logged: for each of its starts, in order, the lines of `scalars.json`.

    Lines that a killed run has left unfinished, and lines of other kinds, are skipped.
    """
    return [list(_rows(file)) for file in sorted(run.glob("*/vis_data/scalars.json"))]


def _rows(file: Path) -> Iterator[Row]:
    for line in file.read_text(errors="replace").splitlines():
        try:
            row: Any = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(row, dict):
            row = {
                key: value for key, value in row.items() if isinstance(value, int | float) and abs(value) < MAX_VALUE
            }
            if row.get("step", 0) > 0:
                yield row


def learning_curve(starts: Sequence[Sequence[Row]]) -> list[Point]:
    """The evaluations among the lines of `read_scalars`: one point per epoch, in order.

    Of two evaluations of one epoch, the later one counts.
    """
    points: dict[int, Point] = {}
    for row in (row for rows in starts for row in rows):
        logged = {key.removeprefix(LOGGED): value for key, value in row.items() if key.startswith(LOGGED)}
        scores = {name: logged[name] for name in SCORE_NAMES if name in logged}
        if scores:
            by_class = {name: value for name, value in logged.items() if name.removeprefix("box_").startswith(CLASS_AP)}
            epoch = int(row["step"])
            points[epoch] = {"epoch": epoch, **scores, **by_class}
    return [points[epoch] for epoch in sorted(points)]


def read_curve(run: str | Path) -> list[Point]:
    """The `learning_curve` of a run's work directory."""
    return learning_curve(read_scalars(Path(run)))
