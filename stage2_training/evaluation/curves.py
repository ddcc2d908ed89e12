"""Learning curves: AP over epochs, read from runs' logs and drawn side by side."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from stage2_training.evaluation.scores import AP_NAMES

PREFIX = "coco/"

# One point of a curve: `epoch` and the values of AP_NAMES.
Point = dict[str, Any]


def read_curve(work_dir: str | Path) -> list[Point]:
    """The evaluations of a run, one point per epoch, in order.

    A run that was interrupted has one log per start; where two evaluated the same epoch, the later one counts.
    """
    points: dict[int, Point] = {}
    for log in sorted(Path(work_dir).glob("*/vis_data/scalars.json")):
        for line in log.read_text().splitlines():
            try:
                scalars = json.loads(line)
            except ValueError:  # half a line, written when the run was killed
                continue
            if PREFIX + AP_NAMES[0] in scalars:
                epoch = int(scalars["step"])
                points[epoch] = {"epoch": epoch, **{name: scalars[PREFIX + name] for name in AP_NAMES}}
    return [points[epoch] for epoch in sorted(points)]


def plot_curves(curves: Mapping[str, Sequence[Point]], path: str | Path, metric: str = "AP") -> None:
    """Draw `metric` (in percent) over epochs, one line per named curve, as an image file."""
    figure = Figure(figsize=(6, 4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for name, points in curves.items():
        axes.plot(
            [point["epoch"] for point in points], [100 * point[metric] for point in points], "o-", ms=3, label=name
        )
    axes.set_xlabel("epoch")
    axes.set_ylabel(f"mask {metric} (%)")
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=150)
