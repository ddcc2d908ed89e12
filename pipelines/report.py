"""`report`: one HTML page of all runs, shard sets, tables and figures below a directory, readable without it.

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
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import Any

import click
import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape
from PIL import Image

from pipelines.console import duration
from pipelines.experiments.record import ExperimentRecord
from pipelines.options import PATH, Command
from stage1_proposals.analysis.statistics import sample
from stage1_proposals.common.drawing import contact_sheet, draw_proposals
from stage1_proposals.common.errors import UserError
from stage1_proposals.common.files import atomic_write, check_writable, in_use, writing
from stage1_proposals.images.decode import ImageError, read_image
from stage1_proposals.shards import ShardReader, ShardSet
from stage1_proposals.shards.shard_set import MANIFEST
from stage2_training.evaluation.scores import AP_NAMES, learning_curve, read_scalars
from stage2_training.runs.provenance import COMMANDS, CommandRecord
from stage2_training.runs.work_dir import NON_FINITE, WorkDir, flatten, settings

# Files that only the directory of a run has beside its config.
RUN_FILES = frozenset({COMMANDS, "finished.json", "initial.pth", "transfer.json", "last_checkpoint"})
RECORD = ".record.json"  # of a figure
SCORES = (*AP_NAMES, "box_AP")
MAX_LINES = 20  # of a chart that have a name in its legend
MAX_SETTINGS = 40  # rows of a table of settings
MAX_CHARACTERS = 60_000  # of a file
MAX_FAILURES = 20
PICTURE_WIDTH = 1200
MAX_PICTURE_BYTES = 8_000_000  # of all pictures of a page
SHEET_IMAGES = 10


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

    def picture(self, image: Image.Image) -> str:
        """An image as JPEG in a `data:` address, not wider than `PICTURE_WIDTH`.

        Raises:
            ValueError: the page has pictures enough.
        """
        if self.picture_bytes >= MAX_PICTURE_BYTES:
            raise ValueError("not shown, the page has pictures enough")
        image.thumbnail((PICTURE_WIDTH, 2 * PICTURE_WIDTH))
        data = io.BytesIO()
        image.save(data, "JPEG", quality=80, optimize=True)
        self.picture_bytes += len(data.getvalue())
        return f"data:image/jpeg;base64,{base64.b64encode(data.getvalue()).decode()}"

    def picture_file(self, path: Path) -> str | None:
        with self.reading(path):
            return self.picture(Image.fromarray(read_image(path)))
        return None


@dataclass(frozen=True)
class Run:
    """One training run.

    Attributes:
        status: `finished`, `running`, `failed`, `interrupted` or `not begun`.
        config: its composed config; `config_text` the file.
        commands: every start, the first one first.
        scores: the last, in [0, 1] or -1; of an unfinished run those it came to.
        curve: points with `epoch` and scores.
        losses: (step, value) of the sum of its losses.
        checkpoints: bytes by file name.
        transfer: number of tensors by where they come from.
        failure: record of a step with a NaN or infinite loss.
    """

    name: str
    status: str
    config: dict[str, Any]
    config_text: str
    commands: list[CommandRecord]
    scores: dict[str, float]
    curve: list[dict[str, Any]]
    losses: list[tuple[float, float]]
    checkpoints: dict[str, int]
    transfer: dict[str, int]
    failure: dict[str, Any] | None

    def setting(self, path: str, default: Any = "-") -> Any:
        """The config's value at a dotted path."""
        value: Any = self.config
        for key in path.split("."):
            if not isinstance(value, dict) or key not in value:
                return default
            value = value[key]
        return value

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
        init = self.setting("initialisation.name", self.setting("initialisation.kind"))
        common = {
            "run": Markup('<a href="#{0}">{0}</a>').format(self.name),
            "status": self.status,
            "model": self.model,
            "init": init,
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
        failure = None  # the run went on well
    points = learning_curve(starts) or page.json(path / "curve.json", list) or []
    curve = [point for point in points if isinstance(point, dict) and _is_number(point.get("epoch"))]
    transfer = page.json(path / "transfer.json", dict) or {}
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
        checkpoints={file.name: file.stat().st_size for file in sorted(path.glob("*.pth"), key=_step)},
        transfer={kind: len(names) for kind, names in transfer.items() if isinstance(names, list | dict)},
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


def _step(checkpoint: Path) -> tuple[int, str]:
    step = checkpoint.stem.rpartition("_")[2]
    return int(step) if step.isdecimal() else -1, checkpoint.name


def read_shard_set(path: Path, page: Page) -> dict[str, Any] | None:
    """A shard set's counts, request, failures and contact sheet; None, listed, when it cannot be opened."""
    with page.reading(path):
        shards = ShardSet.open(path)
        images, proposals, failures = (
            sum(getattr(entry, key) for entry in shards.entries) for key in ("images", "proposals", "failures")
        )
        failed: list[tuple[str, str]] = []
        sheet = None
        with page.reading(path):
            failed = list(islice(_failures(shards), MAX_FAILURES))
        # A sheet beside the set is its own when there is no other set.
        folders = [path, path.parent] if len(list(path.parent.glob(f"*/{MANIFEST}"))) == 1 else [path]
        files = [folder / "contact_sheet.png" for folder in folders if (folder / "contact_sheet.png").is_file()]
        if files:
            sheet = page.picture_file(files[0])
        else:
            with page.reading(path):
                sheet = page.picture(draw_sheet(shards))
        return {
            "name": page.name(path),
            "facts": {
                "images": f"{images:,}",
                "proposals": f"{proposals:,} ({proposals / max(1, images):.1f} per image)",
                "failed images": f"{failures:,}",
                "shards": f"{len(shards.entries):,} ({size(sum(f.stat().st_size for f in shards.shard_paths))})",
            },
            "request": dict(flatten(shards.request.to_json())),
            "failures": dict(failed),
            "sheet": sheet,
        }
    return None


def _failures(shards: ShardSet) -> Iterator[tuple[str, str]]:
    for entry, path in zip(shards.entries, shards.shard_paths, strict=True):
        if entry.failures:
            with closing(ShardReader(path)) as reader:
                yield from reader.failures()


def draw_sheet(shards: ShardSet) -> Image.Image:
    """A small contact sheet, for sets that have none.

    Raises:
        ImageError: there is no image to draw.
    """
    tiles, reason = [], "it holds no image"
    for record, image in sample(shards, Path(shards.image_root), SHEET_IMAGES, seed=0):
        if isinstance(image, ImageError):
            reason = f"{record.file_name} {image}"
        else:
            tiles.append(draw_proposals(image, record.masks(), record.seed))
    if not tiles:
        raise ImageError(f"no contact sheet beside it, and none could be drawn ({reason})")
    return contact_sheet(tiles)


def read_record(path: Path, page: Page) -> ExperimentRecord | None:
    with page.reading(path):
        record = ExperimentRecord.read(path)
        if len({len(row) for row in (record.heading, *record.rows, *record.paper)}) > 1:
            raise ValueError("rows are not as long as the heading")
        return record
    return None


def read_figures(records: Sequence[Path], pictures: Sequence[Path], page: Page) -> list[dict[str, Any]]:
    """Figures with their pictures, then pictures that belong to none; a record names pictures beside it only."""
    figures, left = [], list(pictures)
    for path in records:
        if record := read_record(path, page):
            shown = [file for file in left if file.parent == path.parent and file.name in record.pictures]
            left = [file for file in left if file not in shown]
            if not shown:
                page.problems.append(f"{page.name(path)}: its pictures do not exist")
            figures.append({"title": record.name, "record": record, "pictures": shown})
    figures += [{"title": page.name(file), "record": None, "pictures": [file]} for file in left]
    for figure in figures:
        files = figure["pictures"]
        figure["numbers"] = [_numbers(page.json(file.with_suffix(".json"), dict)) for file in files]
        figure["pictures"] = [data for file in files if (data := page.picture_file(file))]
    return figures


def _numbers(values: dict[str, Any] | None) -> Markup | None:
    """`{name: {what: number}}`, which `draw` writes beside a picture, as a table."""
    inner = {name: row for name, row in (values or {}).items() if isinstance(row, dict)}
    rows = [{"": name, **{k: f"{v:.4g}" for k, v in row.items() if _is_number(v)}} for name, row in inner.items()]
    return html_table(rows) if any(len(row) > 1 for row in rows) else None


def html_table(rows: Sequence[Mapping[str, Any]]) -> Markup:
    """Rows with the same columns as an HTML table; every value is escaped unless it is `Markup`."""
    cells = [{str(escape(name)): str(escape(value)) for name, value in row.items()} for row in rows]
    frame = pd.DataFrame(cells).fillna("-")
    # Our strings are safe; pandas would escape links as well.
    return Markup(frame.to_html(index=False, escape=False, border=0, justify="left"))


def chart(lines: Mapping[str, Sequence[tuple[float, float]]], x: str, y: str, title: str) -> dict[str, str]:
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
    return {"title": title, "data": f"data:image/png;base64,{base64.b64encode(data.getvalue()).decode()}"}


def group(runs: Sequence[Run], *names: str) -> dict[tuple[str, ...], list[Run]]:
    groups: dict[tuple[str, ...], list[Run]] = defaultdict(list)
    for run in runs:
        groups[tuple(str(getattr(run, name)) for name in names)].append(run)
    return groups


def draw_curves(runs: Sequence[Run]) -> list[dict[str, str]]:
    """Charts of AP over epochs, one for each dataset."""
    charts = []
    for (dataset,), alike in group(runs, "dataset").items():
        lines = {run.name: [(p["epoch"], 100 * p["AP"]) for p in run.curve if p.get("AP", -1) >= 0] for run in alike}
        if lines := {name: line for name, line in lines.items() if line}:
            charts.append(chart(lines, "epoch", "mask AP (%)", dataset))
    return charts


def draw_losses(runs: Sequence[Run]) -> list[dict[str, str]]:
    """Charts of the sum of losses over steps, one for each model and dataset: other losses are not comparable."""
    charts = []
    for names, alike in group(runs, "model", "dataset").items():
        if lines := {run.name: run.losses for run in alike if run.losses}:
            charts.append(chart(lines, "step", "loss", " on ".join(names)))
    return charts


def differing_settings(runs: Sequence[Run]) -> list[tuple[str, Markup]]:
    """Settings that differ among the runs of one model on one dataset, each group as a table with a column per run."""
    tables = []
    for names, alike in group(runs, "model", "dataset").items():
        frame = pd.DataFrame({run.name: {k: str(v) for k, v in settings(run.config).items()} for run in alike})
        frame = frame.fillna("not set")
        frame = frame[frame.nunique(axis=1) > 1].head(MAX_SETTINGS)
        if len(frame):
            values = frame.map(lambda value: value[:40]).to_dict(orient="index")
            rows = [{"setting": key, **row} for key, row in values.items()]
            tables.append((" on ".join(names), html_table(rows)))
    return tables


def size(count: int) -> str:
    return f"{count / 1e6:,.1f} MB"


def find(root: Path) -> dict[str, list[Path]]:
    """Runs, shard sets, tables, figures' records and pictures below a directory, in the order of their names."""
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
            found["records"] += [directory / name for name in names if name.endswith(RECORD)]
    return found


@click.command("report", cls=Command)
@click.option(
    "--work-dir", type=PATH, default=Path("work_dirs"), show_default=True, help="Everything below it is shown."
)
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
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.filters |= {"duration": duration, "shell": shlex.join, "size": size, "table": html_table}
    html = environment.get_template("report.html").render(
        root=str(work_dir),
        made=datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z"),
        statuses=Counter(run.status for run in runs),
        problems=page.problems,
        tables=tables,
        figures=figures,
        runs=runs,
        finetuning={names[0]: alike for names, alike in group(finetuning, "dataset").items()},
        pretraining=[run for run in runs if run.pretraining],
        curves=draw_curves(finetuning),
        losses=draw_losses(runs),
        differing=differing_settings(runs),
        shard_sets=shard_sets,
        max_characters=MAX_CHARACTERS,
    )
    with writing(out), atomic_write(out) as scratch:
        scratch.write_text(html, encoding="utf-8", errors="replace")
    counts = {"runs": runs, "shard sets": shard_sets, "tables": tables, "figures": figures}
    listed = ", ".join(f"{len(values)} {kind}" for kind, values in counts.items() if values)
    passed_over = f"; {len(page.problems)} notes on what could not be read or shown" if page.problems else ""
    print(f"{out}: {listed or 'nothing that could be read'} ({size(out.stat().st_size)}){passed_over}")
