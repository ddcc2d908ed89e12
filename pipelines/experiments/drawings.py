"""The paper's figures 3-6: what each drawing shows, and the command that draws it from finished runs."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from pipelines.experiments.asked import Finetuning
from pipelines.experiments.paper import DATASETS, SP, STARTS, finetuned
from pipelines.experiments.plan import data_run, run_of, shards_run
from pipelines.experiments.runs import Run, in_order
from pipelines.experiments.scales import Scale
from pipelines.experiments.workspace import Workspace


@dataclass(frozen=True)
class Drawing:
    """One picture.

    Attributes:
        name: of its file.
        kind: of `pipelines.draw`: `curves`, `activations` or `results`.
        models: its lines or panels by name, all on one data set.
    """

    name: str
    kind: str
    models: Mapping[str, Finetuning]

    @property
    def dataset(self) -> str:
        return next(iter(self.models.values())).dataset


@dataclass(frozen=True)
class Figure:
    """A figure of the paper; `notes` is what a reader must know of it, at any scale."""

    number: int
    title: str
    drawings: tuple[Drawing, ...]
    notes: tuple[str, ...] = ()


def _by_start(*starts: str, epochs: int | None = None) -> dict[str, Finetuning]:
    return {start: finetuned("knet", "coco10", start, epochs) for start in starts}


def _against_mask_rcnn(dataset: str) -> dict[str, Finetuning]:
    return {
        "Mask R-CNN": finetuned("mask_rcnn", dataset, "Img. Sup."),
        "K-Net": finetuned("knet", dataset, "Img. Sup."),
        "K-Net with SP": finetuned("knet", dataset, "SP"),
    }


FIGURE3 = Figure(3, "AP while K-Net is fine-tuned, by start", (Drawing("figure3", "curves", _by_start(*STARTS)),))
FIGURE4 = Figure(
    4,
    "AP while Mask R-CNN and K-Net, with and without SP, are fine-tuned",
    tuple(Drawing(f"figure4-{name}", "curves", _against_mask_rcnn(name)) for name in ("cityscapes", "ctw1500")),
)
FIGURE5 = Figure(
    5, "Proposals, and what K-Net finds after fine-tuning", (Drawing("figure5", "results", _by_start("SP")),)
)
FIGURE6 = Figure(
    6,
    "Where K-Net's kernels are active, on average over images",
    (Drawing("figure6", "activations", _by_start("Img. Sup.", "DenseCL", "SP", epochs=2)),),
    ("The paper's fourth panel is left out: a K-Net trained on the whole of COCO.",),
)
FIGURES = {figure.number: figure for figure in (FIGURE3, FIGURE4, FIGURE5, FIGURE6)}


def drawings_at(figure: Figure, scale: Scale) -> list[Drawing]:
    """The drawings of which a scale has anything, with what it has."""
    had = [
        replace(drawing, models={name: asked for name, asked in drawing.models.items() if scale.lacks(asked) is None})
        for drawing in figure.drawings
    ]
    return [drawing for drawing in had if drawing.models]


def runs_of(drawing: Drawing, scale: Scale, seeds: Sequence[int]) -> dict[str, list[Run]]:
    """Per line or panel its runs, one per seed that is shown: of curves all, of others the first."""
    seeds = shown_seeds(drawing, seeds)
    return {name: [run_of(asked, scale, seed) for seed in seeds] for name, asked in drawing.models.items()}


def shown_seeds(drawing: Drawing, seeds: Sequence[int]) -> Sequence[int]:
    return seeds if drawing.kind == "curves" else seeds[:1]


def shards_of(drawing: Drawing, scale: Scale, seeds: Sequence[int]) -> list[Run]:
    """The shard set whose images are drawn, if it is one: the demo set's unlabeled images have no text to be found."""
    of_test = scale.images is not None
    return [shards_run(SP.masks, scale, seeds[0], of_test=of_test)] if drawing.kind == "results" else []


def needed_by(drawing: Drawing, scale: Scale, seeds: Sequence[int]) -> list[Run]:
    """The runs that a drawing is made from, but for those that they need."""
    return [*itertools.chain(*runs_of(drawing, scale, seeds).values()), *shards_of(drawing, scale, seeds)]


def figure_runs(figure: Figure, scale: Scale, seeds: Sequence[int]) -> list[Run]:
    """All runs of a figure, what is needed first."""
    return in_order(run for drawing in drawings_at(figure, scale) for run in needed_by(drawing, scale, seeds))


def arguments(drawing: Drawing, scale: Scale, seeds: Sequence[int], workspace: Workspace) -> list[str]:
    """The words after `pipelines.draw`."""
    directories = {
        name: [str(workspace.directory(run)) for run in runs] for name, runs in runs_of(drawing, scale, seeds).items()
    }
    models = [f"{name}={','.join(each)}" for name, each in directories.items()]
    device = workspace.machine.options("draw")
    if drawing.kind == "curves":  # which needs none
        where = DATASETS[drawing.dataset] if scale.images is None else "the demo set"
        shown = [*models, "--title", f"Fine-tuning on {where}"]
    elif drawing.kind == "results":
        (shards,) = shards_of(drawing, scale, seeds)
        shown = ["--shards", str(workspace.directory(shards)), "--run", directories["SP"][0], *device]
    else:
        shown = [*models, "--dataset", scale.datasets[drawing.dataset], *device]
        if scale.images:
            shown += ["--data-root", str(workspace.directory(data_run(drawing.dataset, scale)) / "ctw1500")]
    return [drawing.kind, *shown, "--out", str(workspace.root / "figures" / f"{drawing.name}.png")]
