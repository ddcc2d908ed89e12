"""The paper's figures 3-6: what each drawing shows, and the command that draws it from finished runs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipelines.experiments.asked import Asked, Finetuning
from pipelines.experiments.paper import SP, STARTS, finetuned
from pipelines.experiments.plan import data_run, run_of, shards_run
from pipelines.experiments.runs import Run
from pipelines.experiments.scales import Scale
from pipelines.experiments.workspace import Workspace


@dataclass(frozen=True)
class Drawing:
    """One picture.

    Attributes:
        name: of its file.
        kind: of `pipelines.draw`: `curves`, `activations` or `results`.
        title: what it shows.
        models: its lines or panels by name.
    """

    name: str
    kind: str
    title: str
    models: Mapping[str, Finetuning]


@dataclass(frozen=True)
class Figure:
    """A figure of the paper; `notes` is what a reader must know of it, at any scale."""

    number: int
    title: str
    drawings: tuple[Drawing, ...]
    notes: tuple[str, ...] = ()

    @property
    def asked(self) -> list[Asked]:
        return [asked for drawing in self.drawings for asked in drawing.models.values()]


def _against_mask_rcnn(dataset: str) -> dict[str, Finetuning]:
    return {
        "Mask R-CNN": finetuned("mask_rcnn", dataset, "Img. Sup."),
        "K-Net": finetuned("knet", dataset, "Img. Sup."),
        "K-Net with SP": finetuned("knet", dataset, "SP"),
    }


FIGURES = {
    figure.number: figure
    for figure in (
        Figure(
            3,
            "AP while K-Net is fine-tuned on COCO 10 %, by start",
            (
                Drawing(
                    "figure3",
                    "curves",
                    "K-Net on COCO 10 %",
                    {start: finetuned("knet", "coco10", start) for start in STARTS},
                ),
            ),
        ),
        Figure(
            4,
            "AP while Mask R-CNN and K-Net are fine-tuned, with and without SP",
            (
                Drawing("figure4-cityscapes", "curves", "Cityscapes", _against_mask_rcnn("cityscapes")),
                Drawing("figure4-ctw1500", "curves", "CTW1500", _against_mask_rcnn("ctw1500")),
            ),
        ),
        Figure(
            5,
            "Proposals, and what K-Net finds after fine-tuning",
            (Drawing("figure5", "results", "", {"K-Net with SP": finetuned("knet", "coco10", "SP")}),),
        ),
        Figure(
            6,
            "Where kernels are active, on average over photos",
            (
                Drawing(
                    "figure6",
                    "activations",
                    "",
                    {start: finetuned("knet", "coco10", start, epochs=2) for start in ("Img. Sup.", "DenseCL", "SP")},
                ),
            ),
            (
                "After two epochs of fine-tuning each. The paper's fourth panel, a K-Net trained on all of COCO, is "
                "left out.",
            ),
        ),
    )
}


def drawings_at(figure: Figure, scale: Scale) -> list[Drawing]:
    """The drawings of which a scale has anything, with what it has."""
    had = [
        Drawing(
            drawing.name,
            drawing.kind,
            drawing.title,
            {name: asked for name, asked in drawing.models.items() if scale.lacks(asked) is None},
        )
        for drawing in figure.drawings
    ]
    return [drawing for drawing in had if drawing.models]


def runs_of(drawing: Drawing, scale: Scale, seeds: Sequence[int]) -> dict[str, list[Run]]:
    """Per line or panel its runs, one per seed; results and activations are those of the first seed."""
    if drawing.kind != "curves":
        seeds = seeds[:1]
    return {name: [run_of(asked, scale, seed) for seed in seeds] for name, asked in drawing.models.items()}


def drawing_arguments(drawing: Drawing, scale: Scale, seeds: Sequence[int], workspace: Workspace) -> list[str]:
    """The words after `pipelines.draw`."""
    out = ["--out", str(workspace.root / "figures" / f"{drawing.name}.png")]
    runs = runs_of(drawing, scale, seeds)
    models = [f"{name}={','.join(str(workspace.directory(run)) for run in of)}" for name, of in runs.items()]
    if drawing.kind == "curves":
        return ["curves", *models, "--title", drawing.title, *out]
    asked = next(iter(drawing.models.values()))
    if drawing.kind == "results":
        shards = workspace.directory(shards_run(SP.masks, scale, seeds[0]))
        (run,) = runs["K-Net with SP"]
        return ["results", "--shards", str(shards), "--run", str(workspace.directory(run)), *out]
    return ["activations", *models, "--dataset", scale.datasets[asked.dataset], *_root(asked, scale, workspace), *out]


def _root(asked: Finetuning, scale: Scale, workspace: Workspace) -> list[str]:
    """Where the labelled photos are, when not where the data set's config says."""
    if scale.photos is None:
        return []
    return ["--data-root", str(workspace.directory(data_run(asked.dataset, scale)) / "ctw1500")]



