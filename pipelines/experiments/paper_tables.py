"""The paper's Tables 1-7: its numbers, in `paper_tables.csv`, and the target that each row is about.

In the CSV, `init` is the `--init` of fine-tuning; with `sp` and `pseudo`, `masks` and `options` say what it is
pre-trained on and how.
"""

import csv
from dataclasses import dataclass
from pathlib import Path

from pipelines.experiments.scales import ClassAgnostic, FineTuning, Pretraining, Target

SCORES = ("AP", "AP50", "AP75", "AP_S", "AP_M", "AP_L")
INITS = {"imagenet": "Img. Sup.", "densecl": "DenseCL", "swav": "SwAV", "mocov2": "MoCo-v2"}
DATASETS = {"coco10": "COCO 10 %", "coco5": "COCO 5 %", "cityscapes": "Cityscapes", "ctw1500": "CTW1500"}
EPOCHS = {"coco10": 48, "coco5": 48, "cityscapes": 24, "ctw1500": 96}  # of fine-tuning, where a row has no other
SP = Pretraining()


@dataclass(frozen=True)
class Row:
    """A row of a table.

    Attributes:
        names: its first cells.
        paper: the paper's numbers, in percent; None where it prints none.
        target: what our numbers are from; None for methods that are not part of this project.
    """

    names: tuple[str, ...]
    paper: tuple[float | None, ...]
    target: Target | None


@dataclass(frozen=True)
class Table:
    """A table of the paper.

    Attributes:
        columns: headings of the rows' names.
        scores: keys of a run's scores, one for each number of a row.
        notes: what a reader must know at any scale.
    """

    number: int
    title: str
    columns: tuple[str, ...]
    scores: tuple[str, ...] = SCORES
    notes: tuple[str, ...] = ()

    @property
    def rows(self) -> list[Row]:
        with open(Path(__file__).with_suffix(".csv"), encoding="utf-8", newline="") as file:
            return [self._row(cells) for cells in csv.DictReader(file) if cells["table"] == str(self.number)]

    def _row(self, cells: dict[str, str]) -> Row:
        numbers = [cells[name.removeprefix("box_")] for name in self.scores]
        names = tuple(cells["names"].split(" / "))
        return Row(names, tuple(float(number) if number else None for number in numbers), self._target(cells))

    def _target(self, cells: dict[str, str]) -> Target | None:
        model, dataset, init = cells["model"], cells["dataset"], cells["init"]
        if not model:
            return None
        epochs = int(cells["epochs"]) if cells["epochs"] else None
        if not cells["masks"]:
            return FineTuning(model, dataset, init, epochs)
        pretraining = Pretraining(model, cells["masks"], init == "sp", tuple(cells["options"].split()))
        if self.scores[0].startswith("box_"):
            return ClassAgnostic(pretraining, dataset)
        return FineTuning(model, dataset, pretraining, epochs)


WITHOUT_PROMPTS = (
    "Without prompts is without kernel supervision as well (PROMPTS=off): so the paper's 21.7 stands in both "
    "Table 5 and Table 7, and kernel supervision is what Table 4 is about."
)
TABLES = {
    table.number: table
    for table in (
        Table(
            1,
            "Fine-tuning K-Net on little of COCO",
            ("labels", "start"),
            notes=("The paper prints AP_M 25.9 and AP_L 16.6 for SwAV on COCO 5 %, probably in exchanged order.",),
        ),
        Table(2, "Fine-tuning on Cityscapes and CTW1500", ("labels", "model", "start")),
        Table(
            3,
            "Fine-tuning Mask2Former and QueryInst",
            ("labels", "model", "start"),
            notes=("On CTW1500 the paper fine-tunes for 20 epochs after SP, and for 80 from other starts.",),
        ),
        Table(4, "Kernel supervision", ("model", "kernel supervision")),
        Table(5, "How prompts are matched with kernels", ("prompts",), notes=(WITHOUT_PROMPTS,)),
        Table(
            6,
            "Class-agnostic detection without any label",
            ("method", "self-training"),
            ("box_AP", "box_AP50", "box_AP75"),
            ("FreeSOLO, UP-DETR and DETReg are not part of this project: their rows have the paper's numbers only.",),
        ),
        Table(
            7,
            "Pseudo masks of three qualities, with and without prompts",
            ("pseudo masks", "prompts"),
            ("AP",),
            (WITHOUT_PROMPTS,),
        ),
    )
}
