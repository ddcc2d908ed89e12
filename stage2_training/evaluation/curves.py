"""Learning curves: AP over epochs, averaged over seeds, drawn in one figure."""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import IO

from matplotlib import rc_context
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from stage1_proposals.common.errors import UserError
from stage2_training.evaluation.scores import SCORE_NAMES, Point, read_curve

LINES_INSIDE = 6  # names of more lines stand beside the axes


def read_mean_curve(name: str, runs: Sequence[Path], metric: str) -> list[Point]:
    """The learning curve of a run: `epoch` and `metric`; of several runs, the seeds of one setting, their mean.

    Args:
        name: of the setting, for messages.
        runs: work directories.
        metric: one of `SCORE_NAMES`.

    Raises:
        UserError: no such metric; a run was not evaluated or lacks the metric; the runs have no epoch in common.
    """
    if metric not in SCORE_NAMES:
        raise UserError(f"--metric {metric}: no such score; there are {', '.join(SCORE_NAMES)}")
    curves = []
    for run in runs:
        points = read_curve(run)
        if not points:
            raise UserError(f"{run}: no run here that was evaluated")
        if any(point.get(metric, -1) < 0 for point in points):
            raise UserError(f"{run}: has no {metric} at every epoch; draw another --metric")
        curves.append([{"epoch": point["epoch"], metric: point[metric]} for point in points])
    curve = curves[0] if len(curves) == 1 else mean_curve(curves, metric)
    if not curve:
        raise UserError(f"{name}: its runs have no epoch in common at which they were evaluated")
    return curve


def mean_curve(curves: Sequence[Sequence[Point]], metric: str) -> list[Point]:
    """The mean of several seeds' curves: `epoch`, `metric` (the mean), and its `lowest` and `highest` value.

    Epochs that a curve lacks are left out.
    """
    values = [{point["epoch"]: point[metric] for point in points} for points in curves]
    points = []
    for epoch in sorted(set.intersection(*map(set, values))):
        at_epoch = [curve[epoch] for curve in values]
        points.append({"epoch": epoch, metric: fmean(at_epoch), "lowest": min(at_epoch), "highest": max(at_epoch)})
    return points


@rc_context({"text.parse_math": False})  # names may contain dollar signs
def plot_curves(
    curves: Mapping[str, Sequence[Point]],
    path: str | Path | IO[bytes],
    metric: str = "AP",
    title: str | None = None,
    over: str = "epoch",
    dashed: Collection[str] = (),
) -> None:
    """Draw `metric` (in percent) over epochs as an image: a line per named curve, with a band if it is a mean.

    Args:
        path: of the image, or an open file, which becomes a PNG.
        over: what it is drawn over instead, a key of the points; such an axis is logarithmic.
        dashed: names of curves that are drawn so.
    """
    many = len(curves) > LINES_INSIDE or over != "epoch"  # curves over epochs rise, and leave room for names
    figure = Figure(figsize=(9, 4) if many else (6, 4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for name, points in curves.items():
        places = [point[over] for point in points]
        style = "o--" if name in dashed else "o-"
        (line,) = axes.plot(places, [100 * point[metric] for point in points], style, ms=3, label=name)
        if points and "lowest" in points[0]:
            low, high = ([100 * point[edge] for point in points] for edge in ("lowest", "highest"))
            axes.fill_between(places, low, high, color=line.get_color(), alpha=0.2, linewidth=0)
            axes.vlines(places, low, high, color=line.get_color(), alpha=0.4)  # a single one has no band
    axes.set_xlabel(over)
    axes.set_ylabel(f"{'box' if metric.startswith('box_') else 'mask'} {metric.removeprefix('box_')} (%)")
    axes.set_ylim(bottom=0)
    if over == "epoch":
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    else:
        places = sorted({point[over] for points in curves.values() for point in points})
        axes.set_xscale("log")
        axes.set_xticks(places, [f"{place:g}" for place in places])
        axes.set_xticks([], minor=True)
    axes.grid(alpha=0.3)
    if many:
        figure.legend(loc="outside right upper", fontsize="x-small")
    else:
        axes.legend()
    if title:
        axes.set_title(title)
    figure.savefig(path, dpi=150)
