"""The page: everything that was found, as one HTML text."""

import base64
import hashlib
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from pipelines.duration import duration
from pipelines.reporting.chart import COLOURS, Series, line_chart
from pipelines.reporting.compare import Comparison, Seeds, group
from pipelines.reporting.config import at
from pipelines.reporting.figures import Figure
from pipelines.reporting.notes import Notes
from pipelines.reporting.runs import Run
from pipelines.reporting.shard_sets import Shards
from pipelines.reporting.tables import Table
from stage2_training.evaluation.scores import AP_NAMES

HERE = Path(__file__).parent
SCORES = (*AP_NAMES, "box_AP")
STATUSES = ("finished", "running", "interrupted", "failed", "not begun")
CONFIG_CHARACTERS = 60_000
STARTS_SHOWN = 20
NOTES_SHOWN = 100


@dataclass
class Content:
    """What a page shows."""

    runs: list[Run] = field(default_factory=list)
    shard_sets: list[Shards] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    figures: list[Figure] = field(default_factory=list)


@dataclass(frozen=True)
class Chart:
    """A chart with its legend: (name, last value, links to the runs)."""

    title: str
    svg: Markup
    legend: list[tuple[str, str, list[Run]]]
    more: int


def render(content: Content, notes: Notes) -> str:
    """The whole page. Every value is escaped by the template; only the charts, made here, are taken as they are."""
    environment = Environment(
        loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"percent": percent, "duration": duration, "shell": shlex.join, "size": size}
    comparison = Comparison(content.runs)
    finetuning = [run for run in content.runs if not run.pretraining]
    script, style = (Markup((HERE / name).read_text()) for name in ("page.js", "page.css"))
    shown = [name for name in SCORES if name in AP_NAMES or any(name in run.scores for run in finetuning)]
    return environment.get_template("page.html").render(
        script=script,
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        style=style,
        root=str(notes.root),
        made=datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z"),
        content=content,
        comparison=comparison,
        anchors={run.name: f"run-{number}" for number, run in enumerate(content.runs)},
        statuses=[(status, sum(run.status == status for run in content.runs)) for status in STATUSES],
        seconds=sum(run.log.seconds for run in content.runs),
        finetuning=labelled(finetuning),
        pretraining=[run for run in content.runs if run.pretraining],
        scores=shown,
        titles={runs[0].labels: title for title, runs in labelled(finetuning)},
        best={labels: best(runs, shown) for labels, runs in group(finetuning, _labels).items()},
        seeds=[seeds for seeds in comparison.seeds(finetuning) if len(seeds.finished) > 1],
        curves=[curve_chart(title, comparison.seeds(runs)) for title, runs in labelled(finetuning) if _curves(runs)],
        losses=loss_charts(comparison),
        parts=loss_parts,
        at=at,
        notes=notes.lines[:NOTES_SHOWN],
        notes_left=len(notes.lines[NOTES_SHOWN:]),
        config_characters=CONFIG_CHARACTERS,
        starts_shown=STARTS_SHOWN,
    )


def _labels(run: Run) -> tuple[str, ...]:
    return run.labels


def _curves(runs: Sequence[Run]) -> bool:
    return any("AP" in point for run in runs for point in run.log.curve)


def labelled(runs: Sequence[Run]) -> list[tuple[str, list[Run]]]:
    """Fine-tuning runs by their labels, each group under the labels' name, finished ones and the best first."""
    groups = [sorted(alike, key=_best_first) for alike in group(runs, _labels).values()]
    return [(next((run for run in alike if run.commands), alike[0]).dataset, alike) for alike in groups]


def _best_first(run: Run) -> tuple[bool, float]:
    return run.status != "finished", -run.scores.get("AP", -1)


def best(runs: Sequence[Run], scores: Sequence[str]) -> dict[str, str]:
    """The highest value of each score among finished runs, as it is shown, where not all are shown as the same."""
    finished = [run for run in runs if run.status == "finished"]
    values = {name: [run.scores[name] for run in finished if run.scores.get(name, -1) >= 0] for name in scores}
    shown = {name: (percent(max(found)), percent(min(found))) for name, found in values.items() if found}
    return {name: highest for name, (highest, lowest) in shown.items() if highest != lowest}


def curve_chart(title: str, seeds: Sequence[Seeds]) -> Chart:
    """AP in percent over epochs, a line per group of runs that differ in their seed alone."""
    return _chart(title, seeds, _curve, "epoch", "mask AP (%)", reverse=True)


def _curve(run: Run) -> list[tuple[float, float]]:
    return [(point["epoch"], 100 * point["AP"]) for point in run.log.curve if point.get("AP", -1) >= 0]


def loss_charts(comparison: Comparison) -> list[Chart]:
    """The sum of losses over steps, a chart for each family of runs: losses of other models mean something else."""
    charts = []
    for family in comparison.families.values():
        first = family[0]
        what = f"pre-training {first.model}" if first.pretraining else f"fine-tuning {first.model} on {first.dataset}"
        if any("loss" in run.log.losses for run in family):
            charts.append(_chart(what, comparison.seeds(family), _loss, "step", "loss", reverse=False))
    return charts


def _loss(run: Run) -> list[tuple[float, float]]:
    return run.log.losses.get("loss", [])


def _chart(
    title: str,
    seeds: Sequence[Seeds],
    line: Callable[[Run], list[tuple[float, float]]],
    x_label: str,
    y_label: str,
    *,
    reverse: bool,
) -> Chart:
    """The groups' lines; the best, by their last values, in colours."""
    bands = [(each, each.band(map(line, each.runs))) for each in seeds]
    drawn = [(each, band) for each, band in bands if band]
    drawn.sort(key=lambda pair: pair[1][-1][1], reverse=reverse)
    series = [Series(each.name, band) for each, band in drawn]
    svg = Markup(line_chart(series, x_label, y_label, from_zero=reverse))
    legend = [(each.name, f"{band[-1][1]:.3g}", list(each.runs)) for each, band in drawn[:COLOURS]]
    return Chart(title, svg, legend, len(drawn) - len(legend))


def loss_parts(run: Run) -> Chart | None:
    """A run's losses by their kind, each summed over the heads' stages."""
    parts = {name: line for name, line in run.log.losses.items() if name != "loss" and line}
    if not parts:
        return None
    series = [Series(name, [(x, y, y, y) for x, y in line]) for name, line in parts.items()]
    legend: list[tuple[str, str, list[Run]]] = [
        (each.name, f"{each.points[-1][1]:.3g}", []) for each in series[:COLOURS]
    ]
    return Chart("", Markup(line_chart(series, "step", "loss")), legend, len(series) - len(legend))


def percent(value: float | None) -> str:
    """`12.3`; a dash where there is no such score, or no object of that size."""
    return "-" if value is None or value < 0 else f"{100 * value:.1f}"


def size(count: int) -> str:
    return f"{count / 1e6:,.1f} MB"
