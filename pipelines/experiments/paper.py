"""The paper's seven tables: every row's names, its numbers as printed, and what gives ours."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from pipelines.experiments.asked import Asked, ClassAgnostic, Finetuning, Pretraining
from stage2_training.evaluation.scores import AP_NAMES

SP = Pretraining()
PLAIN = Pretraining(prompts=False)
STARTS: Mapping[str, str | Pretraining] = {
    "Img. Sup.": "imagenet",
    "DenseCL": "densecl",
    "SwAV": "swav",
    "MoCo-v2": "mocov2",
    "SP": SP,
}
MODELS = {
    "mask_rcnn": "Mask R-CNN",
    "solov2": "SOLOv2",
    "knet": "K-Net",
    "mask2former": "Mask2Former",
    "queryinst": "QueryInst",
}
CNNS = ("mask_rcnn", "solov2")
DATASETS = {"coco10": "COCO 10 %", "coco5": "COCO 5 %", "cityscapes": "Cityscapes", "ctw1500": "CTW1500"}
EPOCHS = {"coco10": 48, "coco5": 48, "cityscapes": 24, "ctw1500": 96}  # of fine-tuning, where a row has no other

Numbers = tuple[float | None, ...]


@dataclass(frozen=True)
class Row:
    """A row of a table.

    Attributes:
        names: what stands before its numbers.
        paper: the paper's, in percent; None where it prints none.
        asked: what gives ours; None: nothing here does.
    """

    names: tuple[str, ...]
    paper: Numbers
    asked: Asked | None


@dataclass(frozen=True)
class Table:
    """A table of the paper.

    Attributes:
        number: the paper's.
        title: of what.
        names: what tops the rows' names.
        scores: keys of a run's scores, one per number of a row.
        rows: in the paper's order.
        notes: what a reader must know of it, at any scale.
    """

    number: int
    title: str
    names: tuple[str, ...]
    scores: tuple[str, ...]
    rows: tuple[Row, ...]
    notes: tuple[str, ...] = ()


def finetuned(model: str, dataset: str, start: str, epochs: int | None = None) -> Finetuning:
    """What a row of Tables 1-3 is trained from; `start` as the paper calls it."""
    chosen = STARTS[start]
    return Finetuning(
        model, dataset, replace(chosen, model=model) if isinstance(chosen, Pretraining) else chosen, epochs
    )


def _rows(model: str, dataset: str, numbers: Mapping[str, Numbers], epochs: Mapping[str, int]) -> Iterator[Row]:
    """Of Tables 2 and 3: one per start; `epochs` by start, where they are not the data set's."""
    for start, paper in numbers.items():
        asked = finetuned(model, dataset, start, epochs.get(start))
        yield Row((DATASETS[dataset], MODELS[model], start), paper, asked)


TABLE1_NUMBERS: Mapping[str, Mapping[str, Numbers]] = {
    "coco5": {
        "Img. Sup.": (14.8, 29.1, 13.7, 4.3, 15.5, 24.4),
        "DenseCL": (16.7, 31.2, 15.9, 5.1, 17.5, 27.7),
        "SwAV": (15.7, 30.3, 14.7, 4.6, 25.9, 16.6),
        "MoCo-v2": (17.0, 32.0, 16.2, 5.3, 18.3, 27.1),
        "SP": (19.9, 35.7, 19.9, 6.0, 21.0, 32.6),
    },
    "coco10": {
        "Img. Sup.": (19.1, 35.7, 18.2, 6.7, 20.0, 31.6),
        "DenseCL": (20.3, 36.4, 20.3, 6.6, 21.8, 33.6),
        "SwAV": (18.9, 34.8, 18.3, 6.8, 20.8, 30.6),
        "MoCo-v2": (20.7, 37.7, 20.4, 6.4, 22.1, 34.2),
        "SP": (23.5, 41.4, 23.7, 7.9, 24.8, 38.6),
    },
}
TABLE1 = Table(
    1,
    "Fine-tuning K-Net on little of COCO",
    ("labels", "start"),
    AP_NAMES,
    tuple(
        Row((DATASETS[dataset], start), paper, finetuned("knet", dataset, start))
        for dataset, numbers in TABLE1_NUMBERS.items()
        for start, paper in numbers.items()
    ),
    ("The paper prints AP_M 25.9 and AP_L 16.6 for SwAV on COCO 5 %: surely the one for the other.",),
)

TABLE2_NUMBERS: Mapping[tuple[str, str], Mapping[str, Numbers]] = {
    ("cityscapes", "mask_rcnn"): {"Img. Sup.": (30.0, 57.4, None, 8.3, 27.9, 49.0)},
    ("cityscapes", "solov2"): {"Img. Sup.": (24.9, 44.4, None, 1.8, 20.1, 50.4)},
    ("cityscapes", "knet"): {
        "Img. Sup.": (24.8, 47.4, None, 4.8, 19.9, 43.1),
        "DenseCL": (28.0, 52.2, None, 6.6, 25.2, 55.2),
        "SwAV": (27.4, 52.1, None, 5.3, 22.7, 49.2),
        "MoCo-v2": (28.2, 51.2, None, 5.9, 26.4, 52.7),
        "SP": (30.6, 55.4, None, 5.8, 27.0, 54.0),
    },
    ("ctw1500", "mask_rcnn"): {"Img. Sup.": (34.5, 69.8, 32.1, 25.9, 40.4, 36.8)},
    ("ctw1500", "solov2"): {"Img. Sup.": (27.9, 59.6, 23.3, 8.7, 30.2, 41.0)},
    ("ctw1500", "knet"): {
        "Img. Sup.": (9.7, 26.5, 6.1, 3.0, 9.2, 19.2),
        "DenseCL": (18.9, 42.6, 15.1, 7.0, 18.8, 32.5),
        "SwAV": (9.1, 25.8, 4.8, 2.7, 9.0, 19.8),
        "MoCo-v2": (13.3, 32.2, 10.0, 4.3, 13.3, 24.2),
        "SP": (34.6, 71.1, 31.0, 18.0, 36.1, 45.7),
    },
}
TABLE2 = Table(
    2,
    "Fine-tuning on Cityscapes and CTW1500",
    ("labels", "model", "start"),
    AP_NAMES,
    tuple(
        row for (dataset, model), numbers in TABLE2_NUMBERS.items() for row in _rows(model, dataset, numbers, epochs={})
    ),
)

TABLE3_NUMBERS: Mapping[tuple[str, str], Mapping[str, Numbers]] = {
    ("ctw1500", "mask2former"): {
        "Img. Sup.": (38.8, 67.6, 41.6, 15.6, 41.2, 57.4),
        "DenseCL": (43.2, 71.6, 48.5, 18.4, 47.6, 59.9),
        "SwAV": (41.2, 69.1, 46.1, 17.6, 45.2, 58.1),
        "MoCo-v2": (43.3, 71.2, 49.2, 18.9, 47.6, 59.4),
        "SP": (52.9, 83.4, 62.1, 29.4, 56.4, 67.6),
    },
    ("ctw1500", "queryinst"): {
        "Img. Sup.": (28.3, 53.7, 28.6, 9.8, 29.0, 41.8),
        "DenseCL": (31.6, 56.7, 33.4, 10.4, 32.5, 46.6),
        "SwAV": (24.6, 50.0, 23.1, 8.1, 25.0, 36.3),
        "MoCo-v2": (31.6, 56.8, 32.8, 12.6, 32.0, 45.8),
        "SP": (39.2, 66.8, 43.1, 16.7, 42.2, 51.9),
    },
    ("cityscapes", "mask2former"): {
        "Img. Sup.": (29.1, 52.4, None, 5.6, 23.9, 55.0),
        "DenseCL": (27.5, 48.9, None, 5.2, 23.8, 53.7),
        "SwAV": (30.3, 53.3, None, 5.4, 23.3, 59.0),
        "MoCo-v2": (30.7, 54.3, None, 5.4, 25.5, 56.4),
        "SP": (31.8, 55.8, None, 5.1, 26.5, 59.0),
    },
    ("cityscapes", "queryinst"): {
        "Img. Sup.": (29.1, 53.2, None, 6.7, 27.4, 50.7),
        "DenseCL": (30.8, 54.7, None, 8.6, 28.9, 54.5),
        "SwAV": (30.7, 54.4, None, 7.9, 28.5, 53.9),
        "MoCo-v2": (31.4, 54.4, None, 8.1, 28.4, 56.1),
        "SP": (32.8, 57.3, None, 8.8, 29.2, 57.0),
    },
}
TABLE3 = Table(
    3,
    "Fine-tuning Mask2Former and QueryInst",
    ("labels", "model", "start"),
    AP_NAMES,
    tuple(
        row
        for (dataset, model), numbers in TABLE3_NUMBERS.items()
        for row in _rows(
            model,
            dataset,
            numbers,
            epochs={start: 20 if start == "SP" else 80 for start in STARTS} if dataset == "ctw1500" else {},
        )
    ),
    ("On CTW1500 the paper fine-tunes for 20 epochs after SP, and for 80 from other starts.",),
)

WITHOUT_PROMPTS = (
    "Without prompts is without kernel supervision as well (PROMPTS=off): so the paper's 21.7 stands in both "
    "Table 5 and Table 7, and kernel supervision is what Table 4 is about."
)

TABLE4 = Table(
    4,
    "Kernel supervision",
    ("model", "kernel supervision"),
    AP_NAMES,
    (
        Row(("K-Net", "on"), (23.5, 41.4, 23.7, 7.9, 24.8, 38.6), Finetuning("knet", "coco10", SP)),
        Row(
            ("K-Net", "off"),
            (23.1, 41.4, 23.0, 7.5, 24.6, 37.8),
            Finetuning("knet", "coco10", replace(SP, options=("kernel_loss_weight=0",))),
        ),
    ),
)

TABLE5 = Table(
    5,
    "How prompts find their kernels",
    ("prompts",),
    AP_NAMES,
    (
        Row(("none",), (21.7, 38.7, 21.7, 7.2, 23.5, 36.2), Finetuning("knet", "coco10", PLAIN)),
        Row(
            ("random",),
            (21.3, 38.3, 21.2, 7.6, 22.5, 35.5),
            Finetuning("knet", "coco10", replace(SP, options=("matching=random",))),
        ),
        Row(
            ("sequential",),
            (23.0, 40.6, 23.0, 8.0, 24.3, 37.6),
            Finetuning("knet", "coco10", replace(SP, options=("matching=sequential",))),
        ),
        Row(("cosine",), (23.5, 41.4, 23.7, 7.9, 24.8, 38.6), Finetuning("knet", "coco10", SP)),
    ),
    (WITHOUT_PROMPTS,),
)

TABLE6 = Table(
    6,
    "Class-agnostic detection without any label",
    ("method", "self-training"),
    ("box_AP", "box_AP50", "box_AP75"),
    (
        Row(("FreeSOLO", "yes"), (5.5, 12.2, 4.2), None),
        Row(("UP-DETR", "no"), (0.0, 0.0, 0.0), None),
        Row(("DETReg", "no"), (1.0, 3.1, 0.6), None),
        Row(("K-Net with SP", "no"), (3.2, 8.5, 2.0), ClassAgnostic(SP, "coco10")),
    ),
    ("FreeSOLO, UP-DETR and DETReg are not part of this project: theirs are the paper's numbers.",),
)

TABLE7 = Table(
    7,
    "Pseudo masks of three qualities, with and without prompts",
    ("pseudo masks", "prompts"),
    ("AP",),
    tuple(
        Row(
            (name, "on" if prompts else "off"), (ap,), Finetuning("knet", "coco10", Pretraining("knet", masks, prompts))
        )
        for name, masks, prompts, ap in (
            ("random", "random", False, 0.8),
            ("random", "random", True, 10.0),
            ("saliency", "saliency", False, 21.7),
            ("saliency", "saliency", True, 23.5),
            ("FreeSOLO", "freesolo", False, 23.3),
            ("FreeSOLO", "freesolo", True, 24.0),
        )
    ),
    (WITHOUT_PROMPTS,),
)

TABLES = {table.number: table for table in (TABLE1, TABLE2, TABLE3, TABLE4, TABLE5, TABLE6, TABLE7)}
