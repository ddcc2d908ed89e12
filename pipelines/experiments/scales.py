"""Two scales to run tables and figures at: the paper's, and the demo's for two CPU cores."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from pipelines.demo_data.demo_set import Counts
from pipelines.experiments.paper import DATASETS, INITS, Experiment, Row
from stage2_training.labels.custom import name_of


@dataclass(frozen=True)
class Given:
    """Labels, images or shards of the user. What they hold is in the names of runs, not where they are."""

    path: str
    content: str  # hashes

    def __str__(self) -> str:
        return self.path


@dataclass(frozen=True)
class Scale:
    """How large the runs are, and on which data (names, numbers of the demo's images, labels); as in the paper."""

    name: str = "paper"
    suffix: str = ""  # of the models' names
    backbone: str = "densecl_r50"  # that finds the pseudo masks, and that pre-training starts from
    inits: tuple[str, ...] = (*INITS, "pseudo", "sp")  # of fine-tuning
    datasets: Mapping[str, str | Counts | Given] = field(default_factory=lambda: {n: n for n in DATASETS})
    unlabeled: str | Given | None = "data/coco/unlabeled2017"  # images to pre-train on; None: the demo set's
    shards: Given | None = None  # to pre-train on, instead of any that are made
    proposals: tuple[str, ...] = ()  # further arguments of stage 1
    labels: tuple[str, ...] = ()  # and of fine-tuning: how labels are read
    pretrain_schedule: str | None = None  # None: the command's own
    finetune_schedule: str | None = None
    image_size: int | None = None
    tiles: str | None = None
    pretrain_epochs: int | None = None  # None: the schedule's
    finetune_epochs: int | None = None  # at most; None: the row's or the dataset's
    freesolo: str | None = None  # COCO JSON of FreeSOLO's masks; None: `freemask`, the masks that FreeSOLO starts from

    def rows(self, experiment: Experiment) -> list[Row]:
        """The rows whose dataset and initialisation the scale has."""
        return [row for row in experiment.rows if row.dataset in self.datasets and row.init in self.inits]

    def generator(self, masks: str) -> str:
        """The generator of stage 1 that makes a kind of pseudo masks."""
        return {"freesolo": "import" if self.freesolo else "freemask"}.get(masks, masks)


def demo_datasets(*counts: int) -> dict[str, Counts]:
    """COCO 5 % is half of COCO 10 %, whose unlabeled images are pre-trained on; Cityscapes would repeat CTW1500."""
    whole = Counts(*counts)
    return {"coco10": whole, "coco5": Counts(1, max(1, whole.train // 2), whole.test), "ctw1500": whole}


PAPER = Scale()
DEMO = Scale(
    name="demo",
    suffix="_lite0",
    backbone="lite0_imagenet",
    inits=("imagenet", "pseudo", "sp"),
    datasets=demo_datasets(),
    unlabeled=None,
    # In one process: for so few images, starting Ray takes as long as a second worker saves.
    proposals=("--short-side", "384", "--images-per-shard", "64", "--workers", "0"),
    pretrain_schedule="pretrain_demo",
    finetune_schedule="finetune_demo",
    image_size=192,
    pretrain_epochs=6,
    finetune_epochs=20,
)
SCALES = {scale.name: scale for scale in (PAPER, DEMO)}


def folder_name(dataset: str) -> str:
    """The name of a dataset of the user in paths and titles: its own, which no scale has."""
    name = name_of(dataset)
    return f"{name}-labels" if name in SCALES else name
