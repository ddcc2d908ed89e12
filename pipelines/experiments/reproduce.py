"""`table` and `figure`: one of the paper at a scale, from runs, of which those missing are executed."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from pipelines import launch
from pipelines.experiments import labels_table, proposal_table
from pipelines.experiments.execute import execute, print_plan
from pipelines.experiments.notes import notes
from pipelines.experiments.own_images import own_scale
from pipelines.experiments.paper import BOXES, DATASETS, FIGURES, TABLES, Experiment, Row
from pipelines.experiments.plan import Plan, option
from pipelines.experiments.record import ExperimentRecord, mean_and_spread, provenance
from pipelines.experiments.scales import DEMO, SCALES, demo_datasets
from pipelines.options import PATH, Command, Group, experiment_options
from stage1_proposals.common.errors import UserError

OWN = {
    "--images": "Unlabeled images to pre-train on, in place of the demo's.",
    "--labels": "COCO instance JSON to evaluate on.",
}
FILE = click.Path(exists=True, dir_okay=False, resolve_path=True)


def _group(name: str, purpose: str, experiments: Mapping[int, Experiment]) -> Group:
    return Group(name, [_command(str(number), experiment) for number, experiment in experiments.items()], help=purpose)


def _command(number: str, experiment: Experiment) -> click.Command:
    @click.command(number, cls=Command, help=f"{experiment.title}.")
    @click.option("--scale", type=click.Choice(list(SCALES)), default=DEMO.name, help="Size of the runs.")
    @experiment_options
    @click.option("--freesolo", type=FILE, help="COCO JSON of FreeSOLO's masks of the unlabeled images, for Table 7.")
    def command(scale: str, work_dir: Path, seeds: Sequence[int], **settings: Any) -> None:
        jobs, dry_run, count = (settings.pop(name) for name in ("jobs", "dry_run", "count"))
        images, labels = (settings.pop(name, None) for name in ("images", "labels"))
        machine = {name: settings.pop(name) for name in ("device", "gpus", "batch_size")}
        if (count or images or labels) and SCALES[scale].unlabeled:
            given = "--count goes" if count else "--images and --labels go"
            raise UserError(f"{given} with --scale demo: at {scale} scale the images are the datasets'")
        changes = settings | {"datasets": count and demo_datasets(*count)}
        changed = replace(SCALES[scale], **{name: value for name, value in changes.items() if value})
        if images or labels:
            if count:
                raise UserError("--count goes with the demo set, not with --images and --labels")
            changed = own_scale(changed, images, labels)
        plan = Plan(changed, work_dir / changed.name, **machine)
        reproduce(experiment, plan, list(dict.fromkeys(seeds)), jobs, dry_run)

    if experiment.scores == BOXES:
        for name, text in OWN.items():
            click.option(name, type=PATH, help=text)(command)
    return command


table = _group("table", "Print a table of the paper beside the paper's numbers, or one of one's own data.", TABLES)
table.add_command(labels_table.command)
table.add_command(proposal_table.command)
figure = _group("figure", "Draw a figure of the paper.", FIGURES)


def reproduce(experiment: Experiment, plan: Plan, seeds: Sequence[int], jobs: int, dry_run: bool) -> None:
    """Execute the runs of a table or figure, draw its pictures, print and write its record; or print the plan only."""
    runs, pictures = plan.runs(experiment, seeds), drawings(experiment, plan, seeds)
    commands = [launch.typed(*words) for words in [*(run.words for run in runs), *pictures.values()]]
    if dry_run:
        print_plan(runs)
        for line in commands[len(runs) :]:
            print(f"Then:\n     $ {line}")
        return
    execute(runs, jobs)
    for name, words in pictures.items():
        launch.step(name, *words)
    rows = plan.scale.rows(experiment) if experiment.scores else []
    record = ExperimentRecord(
        title=experiment.title,
        number=int(experiment.name[-1]),
        scale=plan.scale.name,
        notes=list(notes(experiment, plan.scale, seeds)),
        **provenance(runs, plan.device) | {"commands": commands},
        heading=[*experiment.columns, *(name.removeprefix("box_") for name in experiment.scores)],
        rows=[[*row.names, *our_cells(experiment, row, plan, seeds)] for row in rows],
        paper=[[*row.names, *("-" if number is None else f"{number:.1f}" for number in row.paper)] for row in rows],
        pictures=[f"{name}.png" for name in pictures],
    )
    # `draw` writes figureN.json.
    path = f"figures/{experiment.name}.record.json" if pictures else f"tables/{experiment.name}.json"
    record.publish(plan.root / path)


def our_cells(experiment: Experiment, row: Row, plan: Plan, seeds: Sequence[int]) -> list[str]:
    """A row's scores over the seeds, from what its runs have written: in [0, 1], -1 without objects of that size."""
    files = [plan.run(row, seed).result for seed in seeds]
    scores = [json.loads(file.read_text(encoding="utf-8")) for file in files if file]
    return [mean_and_spread([run[name] for run in scores]) for name in experiment.scores]


def drawings(figure: Experiment, plan: Plan, seeds: Sequence[int]) -> dict[str, list[str]]:
    """The commands that draw a figure, one for each of its datasets, by the names of the pictures."""
    pictures, scale, kind = {}, plan.scale, figure.picture
    datasets = dict.fromkeys(row.dataset for row in figure.rows if kind)
    for dataset in [name for name in datasets if name in scale.datasets]:
        rows = [row for row in scale.rows(figure) if row.dataset == dataset]
        runs = [[str(plan.run(row, seed).directory) for seed in figure.shown_seeds(seeds)] for row in rows]
        words = [f"{', '.join(row.names[1:])}={','.join(seeded)}" for row, seeded in zip(rows, runs, strict=True)]
        if kind == "curves":
            words += ["--title", f"Fine-tuning on {DATASETS[dataset] if scale.unlabeled else 'the demo set'}"]
        elif kind == "results":
            shards = plan.shards("saliency", seeds[0], shown=True)
            words = ["--shards", str(shards.directory), "--work-dir", runs[0][0], *option("--device", plan.device)]
        else:
            words += ["--dataset", str(scale.datasets[dataset]) if scale.unlabeled else "demo"]
            if not scale.unlabeled:
                words += ["--data-root", str(plan.data(dataset).directory / "ctw1500")]
            words += option("--device", plan.device)
        name = figure.name if len(datasets) == 1 else f"{figure.name}-{dataset}"
        pictures[name] = ["draw", kind, *words, "--out", str(plan.root / "figures" / f"{name}.png")]
    return pictures
