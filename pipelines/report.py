"""`report`: one self-contained HTML page of all runs, shard sets, tables and figures below a directory.

The page is made from the records that the commands write as JSON, and from the runs' configs, of which literal values
are read and nothing is executed. A file that is damaged is named on the page, and everything else is shown.
"""

import ast
import base64
import io
import json
import os
import shlex
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import click
import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape
from PIL import Image

from pipelines.console import duration, quiet_imports
from pipelines.experiments.record import ExperimentRecord
from pipelines.options import PATH, Command
from stage1_proposals.common.errors import UserError
from stage1_proposals.common.files import atomic_write, check_writable, in_use, writing
from stage1_proposals.images.decode import read_image
from stage1_proposals.shards import MANIFEST, ShardSet

with quiet_imports():
    from stage2_training.engine.divergence import NON_FINITE
    from stage2_training.evaluation.scores import AP_NAMES, learning_curve, read_scalars
    from stage2_training.runs.provenance import COMMANDS, CommandRecord
    from stage2_training.runs.work_dir import WorkDir

# Files that only the directory of a run has beside its config.
RUN_FILES = frozenset({COMMANDS, "finished.json", "initial.pth", "transfer.json", "last_checkpoint"})
SCORES = (*AP_NAMES, "box_AP")
MAX_LINES = 20  # of a chart that have a name in its legend
PICTURE_WIDTH = 1200
MAX_PICTURE_BYTES = 8_000_000  # of all pictures of a page


@dataclass
class Page:
    """What the readers below share: where paths start, what could not be read, and how many bytes pictures have."""

    root: Path
    problems: list[str] = field(default_factory=list)
    picture_bytes: int = 0

    def name(self, path: Path) -> str:
        return path.relative_to(self.root).as_posix()

    @contextmanager
    def reading(self, path: Path) -> Iterator[None]:
        """List a file or folder that cannot be read, or is not what its name says, instead of raising."""
        try:
            yield
        except (OSError, UserError, ArithmeticError, LookupError, TypeError, ValueError, SyntaxError) as error:
            reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
            first_line = (reason or type(error).__name__).splitlines()[0]
            self.problems.append(f"{self.name(path)}: {first_line}")
        except RecursionError:
            self.problems.append(f"{self.name(path)}: nested too deeply")

    def json(self, path: Path, kind: type) -> Any:
        """A JSON file's value; None when it does not exist or (listed) is not JSON of this kind."""
        if path.exists():
            with self.reading(path):
                value = json.loads(path.read_text(encoding="utf-8"))
                if not isinstance(value, kind):
                    raise ValueError(f"is not a JSON {kind.__name__}")
                return value
        return None

    def picture(self, path: Path) -> str | None:
        """A picture as JPEG in a `data:` address, at most `PICTURE_WIDTH` wide; None (listed) if it is not shown."""
        with self.reading(path):
            if self.picture_bytes >= MAX_PICTURE_BYTES:
                raise ValueError("not shown, the page has pictures enough")
            image, data = Image.fromarray(read_image(path)), io.BytesIO()
            image.thumbnail((PICTURE_WIDTH, 2 * PICTURE_WIDTH))
            image.save(data, "JPEG", quality=80, optimize=True)
            self.picture_bytes += len(data.getvalue())
            return f"data:image/jpeg;base64,{base64.b64encode(data.getvalue()).decode()}"
        return None


@dataclass(frozen=True)
class Run:
    """One training run."""

    name: str
    status: str  # finished, running, failed, interrupted or not begun
    config: dict[str, Any]
    config_text: str
    commands: list[CommandRecord]  # its starts
    scores: dict[str, float]  # the latest, in [0, 1] or -1
    curve: list[dict[str, Any]]  # points with `epoch` and scores
    losses: list[tuple[float, float]]  # (step, sum of the losses)
    failure: dict[str, Any] | None  # record of a step with a NaN or infinite loss

    def setting(self, path: str, default: Any = "-") -> Any:
        """The config's value at a dotted path."""
        value: Any = self.config
        for key in path.split("."):
            if not isinstance(value, dict) or key not in value:
                return default
            value = value[key]
        return value

    @property
    def ap_curve(self) -> list[tuple[float, float]]:
        return [(point["epoch"], 100 * point["AP"]) for point in self.curve if point.get("AP", -1) >= 0]

    @property
    def pretraining(self) -> bool:
        return "pseudo_labels" in self.config

    @property
    def model(self) -> str:
        backbone = self.setting("model.backbone.model_name", f"ResNet-{self.setting('model.backbone.depth')}")
        return f"{str(self.setting('model.type')).removeprefix('SaliencyPrompt')}, {backbone}"

    @property
    def dataset(self) -> str:
        """What it is trained on: runs of one dataset are comparable."""
        if self.pretraining:
            return "pseudo labels"
        root, labels = (self.setting(f"val_dataloader.dataset.{key}") for key in ("data_root", "ann_file"))
        return "/".join(str(part) for part in (root, labels) if part not in ("-", None, ""))

    @property
    def summary(self) -> dict[str, Any]:
        """Its row in the table of runs."""
        common = {
            "run": Markup('<a href="#{0}">{0}</a>').format(self.name),
            "status": self.status,
            "model": self.model,
            "init": self.setting("initialisation.name", self.setting("initialisation.kind")),
            "epochs": self.setting("train_cfg.max_epochs"),
            "batch": self.setting("train_cfg.total_batch"),
            "learning rate": self.setting("optim_wrapper.optimizer.lr"),
            "seed": self.setting("randomness.seed"),
        }
        if self.pretraining:
            loss = f"{self.losses[-1][1]:.2f}" if self.losses else "-"
            prompts = self.setting("model.saliency_prompt.matching", "off")
            return {**common, "prompts": prompts, "images": self.setting("pseudo_labels.images"), "last loss": loss}
        return {**common, **{name.replace("_", " "): percent(self.scores.get(name)) for name in SCORES}}


def percent(score: Any) -> str:
    return "-" if score is None or score < 0 else f"{100 * score:.1f}"


class _Literals(ast.NodeTransformer):
    """`dict(a=1)` and `dict({"b.c": 1})`, which MMEngine writes, as dictionary displays."""

    def visit_Call(self, node: ast.Call) -> ast.AST:
        self.generic_visit(node)
        if isinstance(node.func, ast.Name) and node.func.id == "dict":
            if not node.args:
                keys: list[ast.expr | None] = [ast.Constant(keyword.arg) for keyword in node.keywords]
                return ast.Dict(keys, [keyword.value for keyword in node.keywords])
            if isinstance(node.args[0], ast.Dict) and len(node.args) == 1 and not node.keywords:
                return node.args[0]
        raise ValueError(f"line {node.lineno}: not a plain value")


def read_config(text: str) -> dict[str, Any]:
    """The variables of a composed config; code in it is not executed.

    Raises:
        SyntaxError, ValueError: it is not Python, or holds more than literal values.
    """
    config: dict[str, Any] = {}
    for statement in ast.parse(text).body:
        if not (isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Name)):
            raise ValueError(f"line {statement.lineno}: not a composed config")
        config[statement.targets[0].id] = ast.literal_eval(_Literals().visit(statement.value))
    return config


def read_run(path: Path, page: Page) -> Run | None:
    """The run of a directory; None, listed, when its config cannot be read."""
    config: dict[str, Any] | None = None
    commands: list[CommandRecord] = []
    starts: list[Any] = []
    with page.reading(path / "config.py"):
        text = (path / "config.py").read_text(encoding="utf-8")
        config = read_config(text)
    if config is None:
        return None
    with page.reading(path):
        starts = read_scalars(path)
    with page.reading(path / COMMANDS):
        commands = CommandRecord.read_all(path)
    losses: dict[float, float] = {}
    for rows in starts:
        steps = {row["step"]: row["loss"] for row in rows if "loss" in row}
        resumed = min(steps, default=float("inf"))  # what an earlier start did after the checkpoint is repeated
        losses = {step: loss for step, loss in losses.items() if step < resumed} | steps
    result, failure = page.json(path / "finished.json", dict), page.json(path / NON_FINITE, dict)
    last_step, failed_step = max(losses, default=0), failure and failure.get("step")
    if result is not None or not isinstance(failed_step, int) or last_step >= failed_step:
        failure = None  # the run continued past that step
    points = learning_curve(starts) or page.json(path / "curve.json", list) or []
    curve = [point for point in points if isinstance(point, dict) and _is_number(point.get("epoch"))]
    scores = result or (curve[-1] if curve else {})
    return Run(
        name=page.name(path),
        status=_status(path, result, failure, last_step),
        config=config,
        config_text=text,
        commands=commands,
        scores={name: scores[name] for name in SCORES if _is_number(scores.get(name))},
        curve=curve,
        losses=sorted(losses.items()),
        failure=failure,
    )


def _status(path: Path, result: Any, failure: Any, last_step: float) -> str:
    if result is not None:
        return "finished"
    if in_use(path):
        return "running"
    if failure is not None:
        return "failed"
    return "interrupted" if last_step or WorkDir(path).latest_checkpoint() else "not begun"


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and value == value


def read_shard_set(path: Path, page: Page) -> dict[str, Any] | None:
    """A shard set's counts, request and contact sheet; None, listed, when it cannot be opened."""
    with page.reading(path):
        paths = ShardSet.open(path).shard_paths
        manifest = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
        counts = pd.DataFrame(manifest["shards"], columns=["images", "proposals", "failures"]).sum()
        # A sheet beside the set is its own when there is no other set.
        folders = [path, path.parent] if len(list(path.parent.glob(f"*/{MANIFEST}"))) == 1 else [path]
        files = [folder / "contact_sheet.png" for folder in folders if (folder / "contact_sheet.png").is_file()]
        return {
            "name": page.name(path),
            "facts": {
                "images": f"{counts.images:,}",
                "proposals": f"{counts.proposals:,} ({counts.proposals / max(1, counts.images):.1f} per image)",
                "failed images": f"{counts.failures:,}",
                "shards": f"{len(paths):,} ({size(sum(file.stat().st_size for file in paths))})",
            },
            "request": manifest["request"],
            "sheet": page.picture(files[0]) if files else None,
        }
    return None


def read_record(path: Path, page: Page) -> ExperimentRecord | None:
    with page.reading(path):
        record = ExperimentRecord.read(path)
        if len({len(row) for row in (record.heading, *record.rows, *record.paper)}) > 1:
            raise ValueError("rows are not as long as the heading")
        return record
    return None


def read_figures(records: Sequence[Path], pictures: Sequence[Path], page: Page) -> list[dict[str, Any]]:
    """Figures with their pictures, then pictures that belong to none; a record names pictures beside it only."""
    figures, left = list[dict[str, Any]](), list(pictures)
    for path in records:
        if record := read_record(path, page):
            shown = [file for file in left if file.parent == path.parent and file.name in record.pictures]
            left = [file for file in left if file not in shown]
            if not shown:
                page.problems.append(f"{page.name(path)}: its pictures do not exist")
            figures.append({"title": record.name, "record": record, "pictures": shown})
    figures += [{"title": page.name(file), "record": None, "pictures": [file]} for file in left]
    for figure in figures:
        figure["pictures"] = [data for file in figure["pictures"] if (data := page.picture(file))]
    return figures


def html_table(rows: Sequence[Mapping[str, Any]]) -> Markup:
    """Rows with the same columns as an HTML table; every value is escaped unless it is `Markup`."""
    cells = [{str(escape(name)): str(escape(value)) for name, value in row.items()} for row in rows]
    frame = pd.DataFrame(cells).fillna("-")
    return Markup(frame.to_html(index=False, escape=False, border=0, justify="left"))


def chart(lines: Mapping[str, Sequence[tuple[float, float]]], x: str, y: str) -> str:
    """A line chart as PNG in a `data:` address; `lines` are (x, y) by name."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context({"text.parse_math": False}):  # names with dollars are names
        figure = Figure(figsize=(9, 3.6), layout="constrained")
        axes = figure.add_subplot()
        for number, (name, points) in enumerate(lines.items()):
            marker = "o-" if len(points) <= MAX_LINES else "-"
            axes.plot(*zip(*points, strict=True), marker, ms=3, lw=1.2, label=name if number < MAX_LINES else None)
        axes.set(xlabel=x, ylabel=y)
        axes.grid(alpha=0.3)
        figure.legend(loc="outside right upper", fontsize="x-small", frameon=False)
        data = io.BytesIO()
        figure.savefig(data, format="png", dpi=110)
    return f"data:image/png;base64,{base64.b64encode(data.getvalue()).decode()}"


def group(runs: Sequence[Run]) -> dict[str, list[Run]]:
    """Runs by their dataset."""
    groups: dict[str, list[Run]] = defaultdict(list)
    for run in runs:
        groups[run.dataset].append(run)
    return groups


def learning_curves(groups: Mapping[str, Sequence[Run]]) -> dict[str, str]:
    """A chart of mask AP over epochs for each dataset, with a line for each run that was evaluated."""
    lines = {dataset: {run.name: run.ap_curve for run in runs if run.ap_curve} for dataset, runs in groups.items()}
    return {dataset: chart(curves, "epoch", "mask AP (%)") for dataset, curves in lines.items() if curves}


def size(count: int) -> str:
    return f"{count / 1e6:,.1f} MB"


def find(root: Path) -> dict[str, list[Path]]:
    """Runs, shard sets, tables, records of figures and pictures below a directory, each sorted by path."""
    found: dict[str, list[Path]] = {kind: [] for kind in ("runs", "shard sets", "tables", "records", "pictures")}
    for folder, folders, files in os.walk(root):
        folders.sort()
        directory, names = Path(folder), sorted(files)
        if RUN_FILES.intersection(names) or {"config.py", ".lock"} <= set(names):
            found["runs"].append(directory)
            folders.clear()  # its logs
        elif MANIFEST in names:
            found["shard sets"].append(directory)
        elif directory.name == "tables":
            found["tables"] += [directory / name for name in names if name.endswith(".json")]
        elif directory.name == "figures":
            found["pictures"] += [directory / name for name in names if name.endswith(".png")]
            found["records"] += [directory / name for name in names if name.endswith(".record.json")]
    return found


@click.command("report", cls=Command)
@click.option("--work-dir", type=PATH, default=Path("work_dirs"), help="Everything below it is shown.")
@click.option("--out", type=PATH, help="The page. Default: report.html in the work directory.")
def command(work_dir: Path, out: Path | None) -> None:
    """Write one HTML page of all runs, shard sets, tables and figures below a directory."""
    found = find(work_dir)
    if not any(paths for kind, paths in found.items() if kind != "records"):
        raise UserError(
            f"{work_dir}: no runs, shard sets, tables or figures in there; name their directory with --work-dir "
            f"(WORK_DIR=)"
        )
    out = out or work_dir / "report.html"
    check_writable(out)
    page = Page(work_dir)
    figures = read_figures(found["records"], found["pictures"], page)
    shard_sets = [shards for path in found["shard sets"] if (shards := read_shard_set(path, page))]
    tables = [record for path in found["tables"] if (record := read_record(path, page))]
    runs = [run for path in found["runs"] if (run := read_run(path, page))]
    finetuning = sorted((run for run in runs if not run.pretraining), key=lambda run: -run.scores.get("AP", -1))
    loader = FileSystemLoader(Path(__file__).parent)
    environment = Environment(loader=loader, autoescape=True, undefined=StrictUndefined)
    environment.filters |= {"duration": duration, "shell": shlex.join, "size": size, "table": html_table}
    html = environment.get_template("report.html").render(
        root=str(work_dir),
        made=datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z"),
        statuses=Counter(run.status for run in runs),
        problems=page.problems,
        tables=tables,
        figures=figures,
        runs=runs,
        finetuning=group(finetuning),
        pretraining=[run for run in runs if run.pretraining],
        curves=learning_curves(group(finetuning)),
        shard_sets=shard_sets,
    )
    with writing(out), atomic_write(out) as scratch:
        scratch.write_text(html, encoding="utf-8", errors="replace")
    counts: dict[str, list[Any]] = {"runs": runs, "shard sets": shard_sets, "tables": tables, "figures": figures}
    listed = ", ".join(f"{len(values)} {kind}" for kind, values in counts.items() if values)
    passed_over = f"; {len(page.problems)} notes on what could not be read or shown" if page.problems else ""
    print(f"{out}: {listed or 'nothing that could be read'} ({size(out.stat().st_size)}){passed_over}")
