"""`report`: one self-contained HTML page of all runs, shard sets, tables and figures below a directory.

The page is made from the records that the commands write as JSON; nothing is executed. A file that is damaged is named
on the page, and everything else is shown.
"""

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

from pipelines.console import duration
from pipelines.experiments.record import ExperimentRecord
from pipelines.options import PATH, Command
from stage1_proposals.common.errors import UserError
from stage1_proposals.common.files import atomic_write, check_writable, in_use, writing
from stage1_proposals.images.decode import read_image
from stage1_proposals.shards import MANIFEST, ShardSet
from stage2_training import quiet_imports

with quiet_imports():
    from stage2_training.engine.divergence import NON_FINITE
    from stage2_training.evaluation.curves import plot_curves
    from stage2_training.evaluation.scores import AP_NAMES, learning_curve, read_scalars
    from stage2_training.runs.provenance import COMMANDS, CommandRecord
    from stage2_training.runs.work_dir import SETTINGS, WorkDir

# Files that only the directory of a run has beside its config.
RUN_FILES = frozenset({COMMANDS, SETTINGS, "finished.json", "initial.pth", "transfer.json", "last_checkpoint"})
SCORES = (*AP_NAMES, "box_AP")
NOT_RECORDED = "not recorded"  # runs of before `config.json` was written
MAX_LINES = 20  # of a chart; the best runs have one
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
        except RecursionError:
            self.problems.append(f"{self.name(path)}: nested too deeply")
        except (OSError, UserError, ArithmeticError, LookupError, TypeError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
            self.problems.append(f"{self.name(path)}: {(reason or type(error).__name__).splitlines()[0]}")

    def json(self, path: Path, kind: type) -> Any:
        """A JSON file's value; an empty one when it does not exist or (listed) is not JSON of this kind."""
        if path.exists():
            with self.reading(path):
                value = json.loads(path.read_text(encoding="utf-8"))
                if not isinstance(value, kind):
                    raise ValueError(f"is not a JSON {kind.__name__}")
                return value
        return kind()

    def picture(self, path: Path) -> str | None:
        """A picture as JPEG in a `data:` address, at most `PICTURE_WIDTH` wide; None (listed) if it is not shown."""
        with self.reading(path):
            if self.picture_bytes >= MAX_PICTURE_BYTES:
                raise ValueError("not shown, the page has pictures enough")
            image, data = Image.fromarray(read_image(path)), io.BytesIO()
            image.thumbnail((PICTURE_WIDTH, 2 * PICTURE_WIDTH))
            image.save(data, "JPEG", quality=80, optimize=True)
            self.picture_bytes += len(data.getvalue())
            return data_address(data, "jpeg")
        return None


def data_address(data: io.BytesIO, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data.getvalue()).decode()}"


@dataclass(frozen=True)
class Run:
    """One training run.

    Attributes:
        status: finished, running, failed, interrupted or not begun.
        settings: the composed config; empty if the run has not recorded it as JSON.
        config: the same as its file has it.
        commands: its starts.
        scores: the latest, in [0, 1] or -1.
        curve: points with `epoch` and scores, where there is a mask AP.
        last_loss: the latest sum of the losses.
    """

    name: str
    status: str
    settings: Mapping[str, Any]
    config: str
    commands: Sequence[CommandRecord]
    scores: Mapping[str, float]
    curve: Sequence[dict[str, Any]]
    last_loss: float | None

    def setting(self, path: str, default: Any = "-") -> Any:
        """The config's value at a dotted path."""
        value: Any = self.settings
        for key in path.split("."):
            if not isinstance(value, dict) or key not in value:
                return default
            value = value[key]
        return value

    @property
    def pretraining(self) -> bool:
        return "pseudo_labels" in self.settings

    @property
    def dataset(self) -> str:
        """What fine-tuning trains on: runs of one dataset are comparable."""
        root, labels = (self.setting(f"val_dataloader.dataset.{key}") for key in ("data_root", "ann_file"))
        return "/".join(str(part) for part in (root, labels) if part not in ("-", None, "")) or NOT_RECORDED

    @property
    def summary(self) -> dict[str, Any]:
        """Its row in the table of runs."""
        backbone = self.setting("model.backbone.model_name", f"ResNet-{self.setting('model.backbone.depth')}")
        model = f"{str(self.setting('model.type')).removeprefix('SaliencyPrompt')}, {backbone}"
        row = {
            "run": Markup('<a href="#{0}">{0}</a>').format(self.name),
            "status": self.status,
            "model": model if self.settings else NOT_RECORDED,
            "init": self.setting("initialisation.name", self.setting("initialisation.kind")),
            "epochs": self.setting("train_cfg.max_epochs"),
            "batch": self.setting("train_cfg.total_batch"),
            "learning rate": self.setting("optim_wrapper.optimizer.lr"),
            "seed": self.setting("randomness.seed"),
        }
        if self.pretraining:
            prompts, images = self.setting("model.saliency_prompt.matching", "off"), self.setting("pseudo_labels.images")
            loss = "-" if self.last_loss is None else f"{self.last_loss:.2f}"
            return {**row, "prompts": prompts, "images": images, "last loss": loss}
        scores = {name: self.scores.get(name, -1) for name in SCORES}
        return row | {name.replace("_", " "): "-" if x < 0 else f"{100 * x:.1f}" for name, x in scores.items()}


def read_run(path: Path, page: Page) -> Run | None:
    """The run of a directory, without what is damaged; None, listed, when its log or config cannot be opened."""
    result, failure = page.json(path / "finished.json", dict), page.json(path / NON_FINITE, dict)
    settings, recorded_curve = page.json(path / SETTINGS, dict), page.json(path / "curve.json", list)
    with page.reading(path):
        starts = read_scalars(path)
        losses = [row for rows in starts for row in rows if "loss" in row]
        curve = learning_curve(starts) or [
            point for point in recorded_curve if isinstance(point, dict) and _is_number(point.get("epoch"))
        ]
        scores = result or (curve[-1] if curve else {})
        last_step, failed_step = losses[-1]["step"] if losses else 0, failure.get("step")
        if result:
            status = "finished"
        elif in_use(path):
            status = "running"
        elif isinstance(failed_step, int) and failed_step > last_step:  # else the run continued past that step
            status = "failed"
        else:
            status = "interrupted" if losses or WorkDir(path).latest_checkpoint() else "not begun"
        return Run(
            name=page.name(path),
            status=status,
            settings=settings,
            config=(path / "config.py").read_text(encoding="utf-8", errors="replace"),
            commands=CommandRecord.read_all(path),
            scores={name: scores[name] for name in SCORES if _is_number(scores.get(name))},
            curve=[point for point in curve if _is_number(point.get("AP")) and point["AP"] >= 0],
            last_loss=losses[-1]["loss"] if losses else None,
        )
    return None


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and value == value


def read_shard_set(path: Path, page: Page) -> dict[str, Any] | None:
    """A shard set's counts, request and contact sheet; None, listed, when it cannot be opened."""
    with page.reading(path):
        shards = ShardSet.open(path)
        images, proposals = shards.image_count, shards.proposal_count
        # A sheet beside the set is its own when there is no other set.
        folders = [path, path.parent] if len(list(path.parent.glob(f"*/{MANIFEST}"))) == 1 else [path]
        sheet = next((file for folder in folders if (file := folder / "contact_sheet.png").is_file()), None)
        return {
            "name": page.name(path),
            "facts": {
                "images": f"{images:,}",
                "proposals": f"{proposals:,} ({proposals / max(1, images):.1f} per image)",
                "failed images": f"{sum(entry.failures for entry in shards.entries):,}",
                "shards": f"{len(shards.entries):,} ({size(*shards.shard_paths)})",
            },
            "request": shards.request.to_json(),
            "sheet": page.picture(sheet) if sheet else None,
        }
    return None


def read_record(path: Path, page: Page) -> ExperimentRecord | None:
    """The record of a table or figure; None, listed, when it cannot be read."""
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
    return Markup(pd.DataFrame(cells).to_html(index=False, escape=False, border=0, justify="left"))


def learning_curves(runs: Sequence[Run]) -> str | None:
    """A chart of mask AP over epochs, of the first runs that were evaluated, in a `data:` address; None: none was."""
    curves = {run.name: run.curve for run in runs if run.curve}
    data = io.BytesIO()
    if curves:
        plot_curves(dict(list(curves.items())[:MAX_LINES]), data)
    return data_address(data, "png") if curves else None


def size(*files: Path) -> str:
    return f"{sum(file.stat().st_size for file in files) / 1e6:,.1f} MB"


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
    shown: dict[str, list[Any]] = {
        "runs": [run for path in found["runs"] if (run := read_run(path, page))],
        "shard sets": [shards for path in found["shard sets"] if (shards := read_shard_set(path, page))],
        "tables": [record for path in found["tables"] if (record := read_record(path, page))],
        "figures": read_figures(found["records"], found["pictures"], page),
    }
    finetuning: dict[str, list[Run]] = defaultdict(list)
    for run in sorted(shown["runs"], key=lambda run: -run.scores.get("AP", -1)):
        if not run.pretraining:
            finetuning[run.dataset].append(run)
    loader = FileSystemLoader(Path(__file__).parent)
    environment = Environment(loader=loader, autoescape=True, undefined=StrictUndefined)
    environment.filters |= {"duration": duration, "shell": shlex.join, "table": html_table}
    html = environment.get_template("report.html").render(
        root=str(work_dir),
        made=datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z"),
        problems=page.problems,
        statuses=Counter(run.status for run in shown["runs"]),
        finetuning=finetuning,
        pretraining=[run for run in shown["runs"] if run.pretraining],
        curves={dataset: data for dataset, runs in finetuning.items() if (data := learning_curves(runs))},
        **{kind.replace(" ", "_"): values for kind, values in shown.items()},
    )
    with writing(out), atomic_write(out) as scratch:
        scratch.write_text(html, encoding="utf-8", errors="replace")
    listed = ", ".join(f"{len(values)} {kind}" for kind, values in shown.items() if values)
    passed_over = f"; {len(page.problems)} notes on what could not be read or shown" if page.problems else ""
    print(f"{out}: {listed or 'nothing that could be read'} ({size(out)}){passed_over}")
