"""What a number of the paper comes from, whatever the scale: models, data sets and starts by the paper's names."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Pretraining:
    """A detector trained on pseudo masks.

    Attributes:
        model: fragment of the paper's size, as `knet`.
        masks: of which kind: `saliency`, `random` or `freesolo`.
        prompts: whether with Saliency Prompt; False is the plain detector, without kernel supervision as well.
        options: settings of Saliency Prompt, `name=value`.
    """

    model: str = "knet"
    masks: str = "saliency"
    prompts: bool = True
    options: tuple[str, ...] = ()


@dataclass(frozen=True)
class Finetuning:
    """A detector trained on labels; its number is its mask AP.

    Attributes:
        model: fragment of the paper's size.
        dataset: `coco10`, `coco5`, `cityscapes` or `ctw1500`.
        start: a backbone's name (`imagenet`, `densecl`, `swav`, `mocov2`), or a pre-training.
        epochs: other than the data set's.
    """

    model: str
    dataset: str
    start: str | Pretraining
    epochs: int | None = None


@dataclass(frozen=True)
class ClassAgnostic:
    """A pre-trained detector judged as it is; its number is its class-agnostic box AP."""

    pretraining: Pretraining
    dataset: str


Asked = Finetuning | ClassAgnostic
