"""`report`: one self-contained HTML page of all runs, shard sets, tables and figures below a directory.

The page is made from the records that the commands write as JSON; nothing is executed. A file that is damaged is named
on the page, and everything else is shown.
"""

import base64
import io
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
from stage1_proposals.common.files import atomic_write, check_writable, writing
from stage1_proposals.images.decode import read_image
from stage1_proposals.shards import MANIFEST, ShardSet
from stage2_training import quiet_imports

with quiet_imports():
    from stage2_training.evaluation.curves import plot_curves
    from stage2_training.evaluation.scores import AP_NAMES, percents
    from stage2_training.runs.summary import RunSummary, is_run

SCORES = (*AP_NAMES, "box_AP")
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


def run_row(run: RunSummary, name: str) -> dict[str, Any]:
    """A run's row in the table of runs."""
    row = {
        "run": Markup('<a href="#{0}">{0}</a>').format(name),
        "status": run.status,
        "model": run.model,
        "init": run.setting("initialisation.name", run.setting("initialisation.kind")),
        "epochs": run.setting("train_cfg.max_epochs"),
        "batch": run.setting("train_cfg.total_batch"),
        "learning rate": run.setting("optim_wrapper.optimizer.lr"),
        "seed": run.setting("randomness.seed"),
    }
    if run.pretraining:
        row["prompts"] = run.setting("model.saliency_prompt.matching", "off")
        row["images"] = run.setting("pseudo_labels.images")
        return row | {"last loss": "-" if run.last_loss is None else f"{run.last_loss:.2f}"}
    scores = {name.replace("_", " "): run.scores.get(name, -1) for name in SCORES}
    return row | {name: "-" if score < 0 else f"{100 * score:.1f}" for name, score in scores.items()}


def class_rows(run: RunSummary) -> list[dict[str, str]]:
    """The AP of each class of a run; empty where there is but one."""
    return [
        {
            "class": name,
            **{
                kind.replace("_", " "): text for kind, text in zip(scores, percents(scores, tuple(scores)), strict=True)
            },
        }
        for name, scores in run.class_scores.items()
    ]


def read_run(path: Path, page: Page) -> dict[str, Any] | None:
    """A run with its name, row and config's text; None, listed, when its files cannot be opened."""
    config = None
    with page.reading(path / "config.py"):
        config = (path / "config.py").read_text(encoding="utf-8", errors="replace")
    with page.reading(path):
        run, name = RunSummary.read(path), page.name(path)
        page.problems += [f"{name}/{problem}" for problem in run.problems]
        return {
            "name": name,
            "summary": run,
            "row": run_row(run, name),
            "classes": class_rows(run),
            "config": config or "not readable",
        }
    return None


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
        return ExperimentRecord.read(path)
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


def learning_curves(runs: Sequence[Mapping[str, Any]]) -> str | None:
    """A chart of mask AP over epochs, of the first runs that were evaluated, in a `data:` address; None: none was."""
    points = {run["name"]: [point for point in run["summary"].curve if point.get("AP", -1) >= 0] for run in runs}
    curves = [(name, curve) for name, curve in points.items() if curve]
    data = io.BytesIO()
    if curves:
        plot_curves(dict(curves[:MAX_LINES]), data)
    return data_address(data, "png") if curves else None


def size(*files: Path) -> str:
    return f"{sum(file.stat().st_size for file in files) / 1e6:,.1f} MB"


def find(root: Path) -> dict[str, list[Path]]:
    """Runs, shard sets, tables, records of figures and pictures below a directory, each sorted by path."""
    found: dict[str, list[Path]] = {kind: [] for kind in ("runs", "shard sets", "tables", "records", "pictures")}
    for folder, folders, files in os.walk(root):
        folders.sort()
        directory, names = Path(folder), sorted(files)
        if is_run(names):
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
    finetuning: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for run in sorted(shown["runs"], key=lambda run: -run["summary"].scores.get("AP", -1)):
        if not run["summary"].pretraining:
            finetuning[run["summary"].dataset].append(run)
    loader = FileSystemLoader(Path(__file__).parent)
    environment = Environment(loader=loader, autoescape=True, undefined=StrictUndefined)
    environment.filters |= {"duration": duration, "shell": shlex.join, "table": html_table}
    html = environment.get_template("report.html").render(
        root=str(work_dir),
        made=datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z"),
        problems=page.problems,
        statuses=Counter(run["summary"].status for run in shown["runs"]),
        finetuning=finetuning,
        pretraining=[run for run in shown["runs"] if run["summary"].pretraining],
        curves={dataset: data for dataset, runs in finetuning.items() if (data := learning_curves(runs))},
        **{kind.replace(" ", "_"): values for kind, values in shown.items()},
    )
    with writing(out), atomic_write(out) as scratch:
        scratch.write_text(html, encoding="utf-8", errors="replace")
    listed = ", ".join(f"{len(values)} {kind}" for kind, values in shown.items() if values)
    passed_over = f"; {len(page.problems)} notes on what could not be read or shown" if page.problems else ""
    print(f"{out}: {listed or 'nothing that could be read'} ({size(out)}){passed_over}")
