"""The targets that tables and figures consist of, and two scales to run them at: the paper's and the demo's."""

from collections.abc import Mapping
from dataclasses import dataclass

from pipelines.demo_data import demo_set


@dataclass(frozen=True)
class Pretraining:
    """A detector trained on pseudo masks.

    Attributes:
        model: the paper's, as `knet`.
        masks: kind of the pseudo masks: `saliency`, `random` or `freesolo`.
        prompts: with Saliency Prompt; False: the plain detector, without kernel supervision as well.
        options: settings of Saliency Prompt, `name=value`.
    """

    model: str = "knet"
    masks: str = "saliency"
    prompts: bool = True
    options: tuple[str, ...] = ()


@dataclass(frozen=True)
class FineTuning:
    """A detector trained on labels; the entry is its mask AP.

    Attributes:
        model: the paper's, as `knet`.
        dataset: `coco10`, `coco5`, `cityscapes` or `ctw1500`.
        init: a pre-training, or a backbone: `imagenet`, `densecl`, `swav` or `mocov2`.
        epochs: None: the dataset's.
    """

    model: str
    dataset: str
    init: str | Pretraining
    epochs: int | None = None

    @property
    def pretraining(self) -> Pretraining | None:
        return self.init if isinstance(self.init, Pretraining) else None


@dataclass(frozen=True)
class ClassAgnostic:
    """A pre-trained detector evaluated without fine-tuning; the entry is its class-agnostic box AP."""

    pretraining: Pretraining
    dataset: str


Target = FineTuning | ClassAgnostic


@dataclass(frozen=True)
class Scale:
    """How large the runs are.

    Attributes:
        name: `paper` or `demo`.
        suffix: of the models' names.
        backbone: finds the pseudo masks; pre-training starts from it.
        inits: backbones that fine-tuning can start from.
        datasets: the paper's labelled datasets that the scale has, and what stands for each.
        images: of the demo set, to pre-train on, to train on and to test on; None: real data.
        unlabeled: folder of the images to pre-train on; None: the demo set's.
        proposals, pretrain, finetune: further arguments of these commands.
        pretrain_epochs: None: the schedule's.
        finetune_epochs: at most; None: the row's or the dataset's.
        freesolo: COCO JSON of FreeSOLO's masks.
    """

    name: str
    suffix: str
    backbone: str
    inits: tuple[str, ...]
    datasets: Mapping[str, str]
    images: tuple[int, int, int] | None = None
    unlabeled: str | None = None
    proposals: tuple[str, ...] = ()
    pretrain: tuple[str, ...] = ()
    finetune: tuple[str, ...] = ()
    pretrain_epochs: int | None = None
    finetune_epochs: int | None = None
    freesolo: str | None = None

    def missing(self, target: Target) -> str | None:
        """The dataset or the backbone that a target needs and the scale does not have; None if it has all."""
        if target.dataset not in self.datasets:
            return target.dataset
        init = None if isinstance(target, ClassAgnostic) else target.init
        return init if isinstance(init, str) and init not in self.inits else None

    def training_images(self, dataset: str) -> int:
        """Labelled images to train on, of the demo set: half of them for COCO 5 %, which is half of COCO 10 %."""
        assert self.images is not None
        return max(1, self.images[1] // 2) if dataset == "coco5" else self.images[1]

    def finetuning_epochs(self, epochs: int | None) -> int | None:
        """Epochs of fine-tuning for a row that states `epochs`; None: the dataset's."""
        return min((n for n in (epochs, self.finetune_epochs) if n is not None), default=None)


PAPER = Scale(
    name="paper",
    suffix="",
    backbone="densecl_r50",
    inits=("imagenet", "densecl", "swav", "mocov2"),
    datasets={name: name for name in ("coco10", "coco5", "cityscapes", "ctw1500")},
    unlabeled="data/coco/unlabeled2017",
)
COUNTS = demo_set.Counts()
DEMO = Scale(
    name="demo",
    suffix="_lite0",
    backbone="lite0_imagenet",
    inits=("imagenet",),
    datasets={"coco10": "demo", "coco5": "demo", "ctw1500": "demo"},  # Cityscapes would repeat the runs of CTW1500
    images=(COUNTS.unlabeled, COUNTS.train, COUNTS.test),
    # In one process: for so few images, starting Ray takes as long as a second worker saves.
    proposals=("--short-side", "384", "--images-per-shard", "64", "--workers", "0"),
    pretrain=("--schedule", "pretrain_demo", "--image-size", "192"),
    finetune=("--schedule", "finetune_demo", "--image-size", "192"),
    pretrain_epochs=6,
    finetune_epochs=20,
)
SCALES = {scale.name: scale for scale in (PAPER, DEMO)}
