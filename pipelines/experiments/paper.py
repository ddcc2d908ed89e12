"""The paper's Tables 1-7 and Figures 3-6; their rows and numbers are in `paper.csv`."""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

SCORES = ("AP", "AP50", "AP75", "AP_S", "AP_M", "AP_L")
BOXES = ("box_AP", "box_AP50", "box_AP75")
MASKS = ("pseudo masks", "prompts")
INITS = {"imagenet": "Img. Sup.", "densecl": "DenseCL", "swav": "SwAV", "mocov2": "MoCo-v2"}
DATASETS = {"coco10": "COCO 10 %", "coco5": "COCO 5 %", "cityscapes": "Cityscapes", "ctw1500": "CTW1500"}


@dataclass(frozen=True)
class Row:
    """A row of a table, or what a figure shows under one name: what is trained on what."""

    model: str  # as `knet`
    dataset: str = ""  # of DATASETS
    init: str = ""  # of fine-tuning: one of INITS, or pre-training with (`sp`) or without prompts (`pseudo`)
    masks: str = ""  # that it is pre-trained on: a generator's, or `freesolo`'s; of several rounds, one after another
    options: tuple[str, ...] = ()  # of Saliency Prompt, `name=value`
    epochs: int | None = None  # of fine-tuning; None: the dataset's; 0: the pre-trained detector's boxes are evaluated
    names: tuple[str, ...] = ()  # its first cells
    paper: tuple[float | None, ...] = ()  # the paper's numbers, in percent; None where it prints none
    images: int | None = None  # to fine-tune on; None: all of the dataset's


@dataclass(frozen=True)
class Experiment:
    """A table or a figure of the paper."""

    name: str  # as `table1`
    title: str
    columns: tuple[str, ...] = ()  # headings of the rows' names
    scores: tuple[str, ...] = ()  # keys of a run's scores, one for each number of a row
    picture: str = ""  # a figure's kind of picture, a subcommand of `draw`

    @cached_property
    def rows(self) -> list[Row]:
        with Path(__file__).with_suffix(".csv").open(encoding="utf-8", newline="") as file:
            return [self._row(**cells) for cells in csv.DictReader(file) if self.name in cells["experiments"].split()]

    def _row(self, names: str, model: str, dataset: str, init: str, masks: str, options: str, **cells: str) -> Row:
        epochs = int(cells["epochs"]) if cells["epochs"] else None
        numbers = [cells[name.removeprefix("box_")] for name in self.scores]
        paper = tuple(float(number) if number else None for number in numbers)
        return Row(model, dataset, init, masks, tuple(options.split()), epochs, tuple(names.split(" / ")), paper)

    def shown_seeds(self, seeds: Sequence[int]) -> Sequence[int]:
        """Tables and curves are means over all seeds; other pictures show the first."""
        return seeds if self.picture in ("", "curves") else seeds[:1]


TABLES = {
    1: Experiment("table1", "Fine-tuning K-Net on 5 % and 10 % of COCO", ("labels", "initialisation"), SCORES),
    2: Experiment("table2", "Fine-tuning on Cityscapes and CTW1500", ("labels", "model", "initialisation"), SCORES),
    3: Experiment("table3", "Fine-tuning Mask2Former and QueryInst", ("labels", "model", "initialisation"), SCORES),
    4: Experiment("table4", "Kernel supervision", ("model", "kernel supervision"), SCORES),
    5: Experiment("table5", "How prompts are matched with kernels", ("prompts",), SCORES),
    6: Experiment("table6", "Class-agnostic detection without any label", ("method", "self-training"), BOXES),
    7: Experiment("table7", "Three kinds of pseudo masks, with and without prompts", MASKS, ("AP",)),
}
FIGURES = {
    3: Experiment("figure3", "AP while K-Net is fine-tuned, by initialisation", picture="curves"),
    4: Experiment("figure4", "AP while Mask R-CNN and K-Net, with and without SP, are fine-tuned", picture="curves"),
    5: Experiment("figure5", "Proposals, and what K-Net finds after fine-tuning", picture="results"),
    6: Experiment("figure6", "Where K-Net's kernels are active, on average over images", picture="activations"),
}
