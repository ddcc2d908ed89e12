"""`table`: a table of the paper at a scale, our numbers beside the paper's; missing runs are executed first."""

import json
from collections.abc import Mapping, Sequence
from statistics import fmean, stdev

import click

from pipelines.console import describe_machine
from pipelines.experiments.execute import Workspace, execute, print_plan
from pipelines.experiments.experiment import Experiment, experiment_options
from pipelines.experiments.paper_tables import TABLES, Row, Table
from pipelines.experiments.plan import Run, in_order, run_for
from pipelines.experiments.scales import Scale
from pipelines.options import Command
from stage1_proposals.common.system import choose_device

TITLES = "; ".join(f"{number}: {table.title}" for number, table in TABLES.items())


@click.command("table", cls=Command, help=f"Print a table of the paper beside the paper's numbers. {TITLES}.")
@click.argument("number", type=click.Choice(list(map(str, TABLES))))
@click.option("--markdown", is_flag=True, help="Print Markdown.")
@experiment_options
def command(number: str, markdown: bool, experiment: Experiment) -> None:
    table, workspace = TABLES[int(number)], experiment.workspace
    runs = table_runs(table, experiment.scale, experiment.seeds)
    if experiment.dry_run:
        print_plan(runs, workspace)
        return
    execute(runs, workspace, experiment.jobs)
    # Torch takes seconds to import; --help and --dry-run do without them.
    from pipelines.experiments.notes import scale_notes, seed_note, settings_note
    from pipelines.experiments.record import ExperimentRecord, run_directories

    scale, seeds, rows = experiment.scale, experiment.seeds, rows_at(table, experiment.scale)
    targets = [row.target for row in rows if row.target]
    all_targets = [row.target for row in table.rows if row.target]
    record = ExperimentRecord(
        title=table.title,
        number=table.number,
        scale=scale.name,
        notes=[
            seed_note(targets, seeds),
            *table.notes,
            *scale_notes(all_targets, scale),
            settings_note(scale),
        ],
        runs=run_directories(runs, workspace),
        commands=list(map(workspace.command_line, runs)),
        machine=describe_machine(choose_device(workspace.device)),
        seconds=round(sum(workspace.state(run)["seconds"] for run in runs)),
        heading=[*table.columns, *(name.removeprefix("box_") for name in table.scores)],
        rows=[[*row.names, *our_cells(table, row_scores(row, scale, seeds, workspace))] for row in rows],
        paper=[[*row.names, *("-" if value is None else f"{value:.1f}" for value in row.paper)] for row in rows],
    )
    path = workspace.root / "tables" / f"table{table.number}.md"
    record.write(path)
    print(f"\n{record.markdown() if markdown else record.text()}\n")
    print(f"Written to {path}, with its commands, and to {path.with_suffix('.json')}")


def rows_at(table: Table, scale: Scale) -> list[Row]:
    """The rows that a scale has what they need for, and those that are the paper's only."""
    return [row for row in table.rows if row.target is None or scale.missing(row.target) is None]


def table_runs(table: Table, scale: Scale, seeds: Sequence[int]) -> list[Run]:
    """All runs of a table, dependencies first, and one seed after the other."""
    targets = [row.target for row in rows_at(table, scale) if row.target]
    return in_order(run_for(target, scale, seed) for seed in seeds for target in targets)


def row_scores(row: Row, scale: Scale, seeds: Sequence[int], workspace: Workspace) -> list[Mapping[str, float]]:
    """Scores of a row's finished runs, in [0, 1], by name; -1 where there are no objects of that size."""
    runs = [run_for(row.target, scale, seed) for seed in seeds] if row.target else []
    files = [workspace.directory(run) / (run.file or "finished.json") for run in runs]
    return [json.loads(file.read_text(encoding="utf-8")) for file in files]


def our_cells(table: Table, scores: Sequence[Mapping[str, float]]) -> list[str]:
    return [mean_and_spread([run[name] for run in scores]) for name in table.scores]


def mean_and_spread(values: Sequence[float]) -> str:
    """Mean ± sample standard deviation of scores, in percent; without spread for one, `-` for none or below 0."""
    if not values or min(values) < 0:
        return "-"
    mean = f"{100 * fmean(values):.1f}"
    return f"{mean} ± {100 * stdev(values):.1f}" if len(values) > 1 else mean
