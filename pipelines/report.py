"""One HTML page over all runs, shard sets, tables and figures in a directory, with everything in it."""

import argparse
import sys
from pathlib import Path

from pipelines import cli
from pipelines.reporting.figures import read_figures
from pipelines.reporting.notes import Notes
from pipelines.reporting.page import Content, render
from pipelines.reporting.pictures import Album
from pipelines.reporting.runs import read_run
from pipelines.reporting.search import search
from pipelines.reporting.shard_sets import read_shards
from pipelines.reporting.tables import read_table
from stage1_proposals.common.errors import UserError
from stage1_proposals.common.files import atomic_write, check_writable, writing


def build_parser() -> argparse.ArgumentParser:
    parser = cli.Parser(prog="python -m pipelines.report", description=__doc__)
    parser.add_argument("--work-dir", type=Path, default=Path("work_dirs"), help="what is shown is below it")
    parser.add_argument("--out", type=Path, help="the page (default: report.html in the work directory)")
    return parser


def main(args: argparse.Namespace) -> None:
    root = args.work_dir
    found = search(root)
    if not found.anything():
        raise UserError(
            f"{root}: no runs, shard sets, tables or figures in there; name their directory with --work-dir (WORK_DIR=)"
        )
    out = args.out or root / "report.html"
    check_writable(out)

    notes = Notes(root)
    album = Album(notes)
    content = Content(
        figures=read_figures(found.abouts, found.pictures, notes, album),
        shard_sets=[shards for path in found.shard_sets if (shards := read_shards(path, notes, album))],
        tables=[table for path in found.tables if (table := read_table(path, notes))],
        runs=[run for path in found.runs if (run := read_run(path, notes))],
    )
    page = render(content, notes)
    with writing(out), atomic_write(out) as scratch:
        scratch.write_text(page, encoding="utf-8", errors="replace")

    told = [
        ("runs", len(content.runs)),
        ("shard sets", len(content.shard_sets)),
        ("tables", len(content.tables)),
        ("figures", len(content.figures)),
    ]
    counts = ", ".join(f"{count} {what}" for what, count in told if count)
    passed_over = f"; {len(notes.lines)} notes on what could not be read or shown" if notes.lines else ""
    print(f"{out}: {counts or 'nothing that could be read'} ({out.stat().st_size / 1e6:.1f} MB){passed_over}")


if __name__ == "__main__":
    sys.exit(cli.run(main, build_parser()))
