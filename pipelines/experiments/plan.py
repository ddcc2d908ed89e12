"""From what a number comes to the runs that give it, at a scale and with a seed."""

import json
import math

from pipelines.demo_data import demo_set
from pipelines.experiments import fragments
from pipelines.experiments.asked import Asked, ClassAgnostic, Finetuning, Pretraining
from pipelines.experiments.runs import Inside, Run, option
from pipelines.experiments.scales import Scale

DEMO_BATCH = 8  # of both demo schedules


def run_of(asked: Asked, scale: Scale, seed: int) -> Run:
    """The run whose scores are the number, for a scale that lacks nothing it needs."""
    if isinstance(asked, ClassAgnostic):
        return class_agnostic_run(asked, scale, seed)
    return finetuning_run(asked, scale, seed)


def data_run(dataset: str, scale: Scale) -> Run:
    """Data of a labelled set of the paper's; at demo scale COCO 5 % is half of the demo set, as it is of COCO 10 %."""
    if scale.images is None:
        return Run("prepare_data", f"data-{dataset}", ("--dataset", dataset), None, kind=f"data {dataset}")
    unlabeled, train, test = scale.images
    counts = (1 if dataset == "coco5" else unlabeled, labelled_images(dataset, train), test)
    rough = None if scale.start_seconds is None else 5 + sum(counts) / 25
    # Images of another version are others.
    label = f"data-v{demo_set.VERSION}-{'-'.join(map(str, counts))}"
    settings = ("--dataset", "demo", "--images", *map(str, counts))
    return Run("prepare_data", label, settings, "--root", proof=demo_set.OBJECTS, kind=label, rough=rough)


def labelled_images(dataset: str, train: int) -> int:
    """How many of the demo set's images are trained on."""
    return max(1, train // 2) if dataset == "coco5" else train


def generator_of(masks: str, scale: Scale) -> str:
    """Of stage 1; where FreeSOLO's masks are not given, the masks that it starts from."""
    return {"freesolo": "import" if scale.freesolo else "freemask"}.get(masks, masks)


def shards_run(masks: str, scale: Scale, seed: int, *, of_test: bool = False) -> Run:
    """Pseudo masks of the unlabeled images; random ones are drawn by the seed.

    Args:
        of_test: of the demo set's test images instead.
    """
    generator = generator_of(masks, scale)
    label = f"shards-{generator}-test" if of_test else f"shards-{generator}"
    extra: tuple[str, ...] = ()
    if generator == "random":
        label, extra = f"{label}-seed{seed}", ("--set", f"seed={seed}")
    elif generator == "import":
        extra = ("--set", f"file={json.dumps(scale.freesolo)}")
    images = scale.unlabeled or Inside(data_run("coco10", scale), "ctw1500/test_images" if of_test else "unlabeled")
    settings: tuple[str | Inside, ...] = (
        *("--images", images, "--backbone", scale.backbone),
        *(*option("--short-side", scale.short_side), *scale.proposals, "--generator", generator, *extra),
    )
    count = scale.images and scale.images[2 if of_test else 0]
    rough = scale.start_seconds and count and scale.start_seconds + count / 8
    kind = f"{generator} masks of {count or 'all'} images"
    configs = (f"proposals/{generator}.toml",)
    return Run("proposals", label, settings, "--shards", configs=configs, kind=kind, rough=rough)


def pretraining_run(asked: Pretraining, scale: Scale, seed: int) -> Run:
    model = asked.model + scale.suffix
    shards = shards_run(asked.masks, scale, seed)
    settings: tuple[str | Inside, ...] = (
        *("--model", model, "--shards", Inside(shards), "--schedule", scale.pretrain_schedule),
        *option("--saliency-prompt", *asked.options),
        *option("--prompts", None if asked.prompts else "off"),
        *option("--epochs", scale.pretrain_epochs),
        *("--seed", str(seed)),
    )
    length = f"{scale.pretrain_epochs or 'all'} epochs of {scale.images[0] if scale.images else 'all'} images"
    rough = _rough(scale, asked.model, scale.images and scale.images[0], scale.pretrain_epochs)
    kind = f"pre-training {model}, {length}"
    label = f"pretrain-{model}-{_told(asked, scale)}-seed{seed}"
    configs = fragments.of_training(model, "pseudo_labels", scale.pretrain_schedule)
    return Run("pretrain", label, settings, "--work-dir", configs=configs, kind=kind, rough=rough)


def finetuning_run(asked: Finetuning, scale: Scale, seed: int) -> Run:
    model, epochs = asked.model + scale.suffix, scale.epochs(asked)
    data, dataset = data_run(asked.dataset, scale), scale.datasets[asked.dataset]
    begin: tuple[str | Inside, ...]
    if isinstance(asked.start, Pretraining):
        pretrained = pretraining_run(asked.start, scale, seed)
        begin = ("--init", "sp" if asked.start.prompts else "pseudo", "--checkpoint", Inside(pretrained))
    else:
        begin = ("--init", asked.start)
    settings = (
        *("--model", model, "--dataset", dataset, *option("--schedule", scale.finetune_schedule), *begin),
        *(("--data-root", Inside(data, "ctw1500")) if scale.images else ()),
        *option("--epochs", epochs),
        *("--seed", str(seed)),
    )
    told = _told(asked.start, scale) if isinstance(asked.start, Pretraining) else asked.start
    images = scale.images and labelled_images(asked.dataset, scale.images[1])
    length = f"{epochs or 'all'} epochs of {images or 'all'} images"
    unusual = "" if epochs == scale.finetune_epochs else f"-{epochs}epochs"
    return Run(
        "finetune",
        f"finetune-{dataset}{images or ''}-{model}-{told}{unusual}-seed{seed}",
        settings,
        "--work-dir",
        configs=fragments.of_training(model, dataset, scale.finetune_schedule),
        after=() if scale.images else (data,),
        kind=f"fine-tuning {model} on {dataset}, {length}",
        rough=_rough(scale, asked.model, images, epochs),
    )


def class_agnostic_run(asked: ClassAgnostic, scale: Scale, seed: int) -> Run:
    """A pre-trained detector's evaluation; the demo set's stands on its labelled images of objects."""
    pretrained, data = pretraining_run(asked.pretraining, scale, seed), data_run(asked.dataset, scale)
    images: tuple[str | Inside, ...] = ("--dataset", scale.datasets[asked.dataset])
    if scale.images:  # all of them: none was trained on
        objects = Inside(data, demo_set.OBJECTS)
        images = ("--dataset", objects, "--test-labels", objects)
    return Run(
        "evaluate",
        f"class_agnostic-{pretrained.label.removeprefix('pretrain-')}",
        ("--work-dir", Inside(pretrained), "--class-agnostic", *images),
        "--out",
        file="scores.json",
        proof="scores.json",
        after=() if scale.images else (data,),
        kind=f"class-agnostic evaluation of {asked.pretraining.model}{scale.suffix}",
        rough=scale.start_seconds and scale.images and scale.start_seconds + scale.images[2] / 5,
    )


def _told(asked: Pretraining, scale: Scale) -> str:
    """A pre-training as part of a name, without its model."""
    changes = [text.replace("=", "_") for text in asked.options]
    return "-".join([generator_of(asked.masks, scale), *changes, *([] if asked.prompts else ["pseudo"])])


def _rough(scale: Scale, model: str, images: int | None, epochs: int | None) -> float | None:
    """Seconds of training at demo scale."""
    if scale.start_seconds is None or scale.step_seconds is None or images is None or epochs is None:
        return None
    return scale.start_seconds + scale.step_seconds[model] * epochs * math.ceil(images / DEMO_BATCH)
