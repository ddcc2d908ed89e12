"""The two scales, with all their settings: the paper's own, and the embedded demo set for two CPU cores."""

from collections.abc import Mapping
from dataclasses import dataclass

from pipelines.demo_data import demo_set
from pipelines.experiments.asked import Asked, Finetuning


@dataclass(frozen=True)
class Scale:
    """How big everything is.

    Attributes:
        name: `paper` or `demo`.
        suffix: of the models' fragments.
        backbone: that makes the pseudo masks and that pre-training starts from.
        starts: the backbones that fine-tuning can start from.
        datasets: the paper's labelled sets, and what stands for them; those missing are left out.
        images: of the demo set, to pre-train on, to train and to test on; None: the real data.
        unlabeled: folder of the images to pre-train on, where that is not the demo set's.
        short_side: that stage 1 resizes images to, in pixels; None: the generator's.
        proposals: further options of stage 1.
        pretrain_schedule, finetune_schedule: fragments; None: the data set's.
        pretrain_epochs: None: the schedule's.
        finetune_epochs: None: as the row or the data set says; else at most these.
        freesolo: COCO JSON of FreeSOLO's masks; None: what FreeSOLO starts from stands for them.
        start_seconds: rough time of a command's start and end, on two CPU cores; None: not known.
        step_seconds: rough time of an optimizer step there, by model.
    """

    name: str
    suffix: str
    backbone: str
    starts: tuple[str, ...]
    datasets: Mapping[str, str]
    images: tuple[int, int, int] | None
    unlabeled: str | None
    short_side: int | None
    proposals: tuple[str, ...]
    pretrain_schedule: str
    finetune_schedule: str | None
    pretrain_epochs: int | None
    finetune_epochs: int | None
    freesolo: str | None = None
    start_seconds: float | None = None
    step_seconds: Mapping[str, float] | None = None

    def lacks(self, asked: Asked) -> str | None:
        """What a number needs that this scale has not; None: it can be had."""
        if asked.dataset not in self.datasets:
            return asked.dataset
        if isinstance(asked, Finetuning) and isinstance(asked.start, str) and asked.start not in self.starts:
            return asked.start
        return None

    def epochs(self, asked: Finetuning) -> int | None:
        """Of fine-tuning; None: the data set's."""
        return min((n for n in (asked.epochs, self.finetune_epochs) if n is not None), default=None)


PAPER = Scale(
    name="paper",
    suffix="",
    backbone="densecl_r50",
    starts=("imagenet", "densecl", "swav", "mocov2"),
    datasets={name: name for name in ("coco10", "coco5", "cityscapes", "ctw1500")},
    images=None,
    unlabeled="data/coco/unlabeled2017",
    short_side=None,
    proposals=(),
    pretrain_schedule="pretrain",
    finetune_schedule=None,
    pretrain_epochs=None,
    finetune_epochs=None,
)

COUNTS = demo_set.Counts()
DEMO = Scale(
    name="demo",
    suffix="_lite0",
    backbone="lite0_imagenet",
    starts=("imagenet",),
    # Cityscapes would be CTW1500's runs once more.
    datasets={"coco10": "demo", "coco5": "demo", "ctw1500": "demo"},
    images=(COUNTS.unlabeled, COUNTS.train, COUNTS.test),
    unlabeled=None,
    short_side=384,
    # In one process: for so few images, starting Ray takes as long as its second worker saves.
    proposals=("--images-per-shard", "64", "--workers", "0"),
    pretrain_schedule="pretrain_small",
    finetune_schedule="finetune_small",
    pretrain_epochs=6,
    finetune_epochs=20,
    start_seconds=30,
    step_seconds={"knet": 0.3, "mask2former": 0.45, "queryinst": 0.7, "mask_rcnn": 0.5, "solov2": 0.5},
)

SCALES = {scale.name: scale for scale in (PAPER, DEMO)}
