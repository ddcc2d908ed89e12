"""`figure`: Figures 3-6 of the paper at a scale, drawn from runs, which are executed first where they are missing."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import click

from pipelines import launch
from pipelines.console import describe_machine
from pipelines.experiments.execute import Workspace, execute, print_plan
from pipelines.experiments.experiment import Experiment, experiment_options
from pipelines.experiments.paper_tables import DATASETS, INITS, SP
from pipelines.experiments.plan import Run, data_run, in_order, run_for, shards_run
from pipelines.experiments.scales import FineTuning, Scale
from pipelines.options import Command
from stage1_proposals.common.system import choose_device


@dataclass(frozen=True)
class Drawing:
    """A picture: `draw KIND` of fine-tuned models, which all have one dataset, under their names."""

    name: str
    kind: str
    models: Mapping[str, FineTuning]

    @property
    def dataset(self) -> str:
        return next(iter(self.models.values())).dataset

    def shown_seeds(self, seeds: Sequence[int]) -> Sequence[int]:
        """Curves are means over all seeds; other pictures show the first."""
        return seeds if self.kind == "curves" else seeds[:1]


@dataclass(frozen=True)
class Figure:
    """A figure of the paper."""

    title: str
    drawings: tuple[Drawing, ...]
    notes: tuple[str, ...] = ()


COCO_INITS = {name: FineTuning("knet", "coco10", init) for init, name in INITS.items()} | {
    "SP": FineTuning("knet", "coco10", SP)
}


def _against_mask_rcnn(dataset: str) -> dict[str, FineTuning]:
    return {
        "Mask R-CNN": FineTuning("mask_rcnn", dataset, "imagenet"),
        "K-Net": FineTuning("knet", dataset, "imagenet"),
        "K-Net with SP": FineTuning("knet", dataset, SP),
    }


FIGURES = {
    3: Figure("AP while K-Net is fine-tuned, by start", (Drawing("figure3", "curves", COCO_INITS),)),
    4: Figure(
        "AP while Mask R-CNN and K-Net, with and without SP, are fine-tuned",
        tuple(Drawing(f"figure4-{name}", "curves", _against_mask_rcnn(name)) for name in ("cityscapes", "ctw1500")),
    ),
    5: Figure(
        "Proposals, and what K-Net finds after fine-tuning",
        (Drawing("figure5", "results", {"SP": COCO_INITS["SP"]}),),
    ),
    6: Figure(
        "Where K-Net's kernels are active, on average over images",
        (
            Drawing(
                "figure6",
                "activations",
                {name: replace(COCO_INITS[name], epochs=2) for name in ("Img. Sup.", "DenseCL", "SP")},
            ),
        ),
        ("The paper's fourth panel is left out: a K-Net trained on the whole of COCO.",),
    ),
}
TITLES = "; ".join(f"{number}: {figure.title}" for number, figure in FIGURES.items())


@click.command("figure", cls=Command, help=f"Draw a figure of the paper. {TITLES}.")
@click.argument("number", type=click.Choice(list(map(str, FIGURES))))
@experiment_options
def command(number: str, experiment: Experiment) -> None:
    figure, scale, seeds, workspace = FIGURES[int(number)], experiment.scale, experiment.seeds, experiment.workspace
    drawings = drawings_at(figure, scale)
    runs = in_order(run for drawing in drawings for run in drawing_runs(drawing, scale, seeds))
    arguments = [draw_arguments(drawing, scale, seeds, workspace) for drawing in drawings]
    if experiment.dry_run:
        print_plan(runs, workspace)
        print("Then:", *(f"     $ {launch.typed('draw', words)}" for words in arguments), sep="\n")
        return
    execute(runs, workspace, experiment.jobs)
    for drawing, words in zip(drawings, arguments, strict=True):
        launch.step(drawing.name, "draw", *words)
    # Torch takes seconds to import; --help and --dry-run do without them.
    from pipelines.experiments.record import ExperimentRecord, run_directories

    record = ExperimentRecord(
        title=figure.title,
        number=int(number),
        scale=scale.name,
        notes=list(_notes(figure, drawings, experiment)),
        runs=run_directories(runs, workspace),
        commands=[*map(workspace.command_line, runs), *(launch.typed("draw", words) for words in arguments)],
        machine=describe_machine(choose_device(workspace.device)),
        seconds=round(sum(workspace.state(run)["seconds"] for run in runs)),
        pictures=[f"{drawing.name}.png" for drawing in drawings],
    )
    path = workspace.root / "figures" / f"figure{number}.md"
    record.write(path, suffix=".record.json")  # beside figureN.json, which `draw` writes
    print(f"\n{record.text()}\n\nWritten to {path}, with its commands, and to {path.with_suffix('.record.json')}")


def drawings_at(figure: Figure, scale: Scale) -> list[Drawing]:
    """The figure's drawings with the models that a scale has what they need for; without empty ones."""
    drawings = []
    for drawing in figure.drawings:
        models = {name: target for name, target in drawing.models.items() if scale.missing(target) is None}
        drawings += [replace(drawing, models=models)] if models else []
    return drawings


def shown_shards(scale: Scale, seeds: Sequence[int]) -> Run:
    """The shard set of Figure 5; at demo scale of the test images, since the unlabeled ones have no text to find."""
    return shards_run(SP.masks, scale, seeds[0], of_test=scale.images is not None)


def drawing_runs(drawing: Drawing, scale: Scale, seeds: Sequence[int]) -> list[Run]:
    """The runs that a drawing shows, without their dependencies."""
    shown = drawing.shown_seeds(seeds)
    runs = [run_for(target, scale, seed) for target in drawing.models.values() for seed in shown]
    return [*runs, shown_shards(scale, seeds)] if drawing.kind == "results" else runs


def draw_arguments(drawing: Drawing, scale: Scale, seeds: Sequence[int], workspace: Workspace) -> list[str]:
    """The words after `draw`."""
    runs = {
        name: [str(workspace.directory(run_for(target, scale, seed))) for seed in drawing.shown_seeds(seeds)]
        for name, target in drawing.models.items()
    }
    models = [f"{name}={','.join(directories)}" for name, directories in runs.items()]
    if drawing.kind == "curves":  # which needs no device
        words = [*models, "--title", f"Fine-tuning on {'the demo set' if scale.images else DATASETS[drawing.dataset]}"]
    elif drawing.kind == "results":
        shards = str(workspace.directory(shown_shards(scale, seeds)))
        words = ["--shards", shards, "--work-dir", runs["SP"][0], *workspace.device_arguments]
    else:
        words = [*models, "--dataset", scale.datasets[drawing.dataset], *workspace.device_arguments]
        if scale.images:
            words += ["--data-root", str(workspace.directory(data_run(drawing.dataset, scale)) / "ctw1500")]
    return [drawing.kind, *words, "--out", str(workspace.root / "figures" / f"{drawing.name}.png")]


def _notes(figure: Figure, drawings: Sequence[Drawing], experiment: Experiment) -> Iterator[str]:
    from pipelines.experiments.notes import scale_notes, seeds_of, settings_note

    scale, seeds = experiment.scale, experiment.seeds
    targets = [target for drawing in drawings for target in drawing.models.values()]
    shown = drawings[0].shown_seeds(seeds)
    if len(shown) > 1:
        yield f"Lines are means over {seeds_of(targets, shown)}; bands go from the lowest run to the highest."
    else:
        first = f", the first of {', '.join(map(str, seeds))}" if len(seeds) > 1 else ""
        yield f"One run per model, with seed {shown[0]}{first}: the spread is unknown, as in the paper."
    for epochs in dict.fromkeys(target.epochs for target in targets if target.epochs):
        ours = scale.finetuning_epochs(epochs)
        yield f"Fine-tuned for {ours} {'epoch' if ours == 1 else 'epochs'}; the paper's for {epochs}."
    yield from figure.notes
    if any(drawing.kind == "results" for drawing in drawings):
        yield (
            "The images are the demo set's test images: its unlabeled ones, which it pre-trains on, show no text."
            if scale.images
            else "The images are unlabeled ones, which it pre-trains on; which the paper's are, it does not say."
        )
    yield from scale_notes([target for drawing in figure.drawings for target in drawing.models.values()], scale)
    yield settings_note(scale)
