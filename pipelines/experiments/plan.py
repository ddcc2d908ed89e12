"""Maps an entry of a table or figure to the runs that produce it: the project's commands with their arguments."""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

from pipelines.demo_data import demo_set
from pipelines.experiments.scales import ClassAgnostic, FineTuning, Pretraining, Scale, Target

CONFIGS = Path(__file__).resolve().parents[2] / "configs"


@dataclass(frozen=True)
class Output:
    """A path in the directory of a run, as an argument of another."""

    run: "Run"
    path: str = "."


@dataclass(frozen=True)
class Run:
    """One command. Equal runs are one run, whichever table asks for them.

    Attributes:
        command: of `python -m pipelines`.
        label: the readable part of its name.
        arguments: those that decide its result; not where it writes or on which device.
        output: the option that says where it writes; None: the dataset's own folder.
        file: that the option names, in the run's directory; empty: the directory.
        configs: glob pattern of the files below `configs` that decide its result.
        after: runs that precede it and are not named by an argument.
    """

    command: str
    label: str
    arguments: tuple[str | Output, ...]
    output: str | None = "--work-dir"
    file: str = ""
    configs: str = ""
    after: tuple["Run", ...] = ()

    @cached_property
    def name(self) -> str:
        """Its label and a digest of its settings, which include those of the runs it depends on."""
        words = [word if isinstance(word, str) else [word.run.name, word.path] for word in self.arguments]
        settings = [self.command, self.label, words, self.configs and config_digest(CONFIGS, self.configs)]
        return f"{self.label}-{hashlib.sha256(json.dumps(settings).encode()).hexdigest()[:6]}"

    @property
    def dependencies(self) -> tuple["Run", ...]:
        return (*self.after, *(word.run for word in self.arguments if isinstance(word, Output)))


@cache
def config_digest(root: Path, pattern: str) -> str:
    """SHA-256, in hex, of all config files that match a glob pattern."""
    digest = hashlib.sha256()
    for path in sorted(root.glob(pattern)):
        digest.update(f"{path.relative_to(root)}\0".encode() + path.read_bytes())
    return digest.hexdigest()


def in_order(runs: Iterable[Run]) -> list[Run]:
    """The runs and their dependencies, each once and after its dependencies."""
    ordered: dict[Run, None] = {}

    def add(run: Run) -> None:
        if run not in ordered:
            for dependency in run.dependencies:
                add(dependency)
            ordered[run] = None

    for run in runs:
        add(run)
    return list(ordered)


def option(name: str, *values: object) -> tuple[str, ...]:
    """The words of an option; none without a value."""
    given = tuple(str(value) for value in values if value is not None)
    return (name, *given) if given else ()


def run_for(target: Target, scale: Scale, seed: int) -> Run:
    """The run whose scores are the entry, at a scale that has what the target needs."""
    return (
        finetuning_run(target, scale, seed)
        if isinstance(target, FineTuning)
        else class_agnostic_run(target, scale, seed)
    )


def data_run(dataset: str, scale: Scale) -> Run:
    """The preparation of a labelled dataset."""
    if scale.images is None:
        return Run("data", f"data-{dataset}", ("--dataset", dataset), None)
    counts = (1 if dataset == "coco5" else scale.images[0], scale.training_images(dataset), scale.images[2])
    label = f"data-v{demo_set.VERSION}-{'-'.join(map(str, counts))}"  # another version has other images
    return Run("data", label, ("--dataset", "demo", "--count", *map(str, counts)), "--data-root")


def generator_of(masks: str, scale: Scale) -> str:
    """The generator of stage 1. Without FreeSOLO's own masks: `freemask`, the masks that FreeSOLO starts from."""
    return {"freesolo": "import" if scale.freesolo else "freemask"}.get(masks, masks)


def shards_run(masks: str, scale: Scale, seed: int, *, of_test: bool = False) -> Run:
    """Pseudo masks of the unlabeled images, or of the demo set's test images; the seed decides random masks only."""
    generator = generator_of(masks, scale)
    label, settings = f"shards-{generator}", ()
    if of_test:
        label += "-test"
    if generator == "random":
        label, settings = f"{label}-seed{seed}", ("--set", f"seed={seed}")
    elif generator == "import":
        settings = ("--set", f"file={json.dumps(scale.freesolo)}")
    folder = "ctw1500/test_images" if of_test else "unlabeled"
    images = scale.unlabeled or Output(data_run("coco10", scale), folder)
    arguments = ("--images", images, "--backbone", scale.backbone, *scale.proposals, "--generator", generator)
    return Run("proposals", label, (*arguments, *settings), "--shards", configs=f"proposals/{generator}.toml")


def pretraining_run(target: Pretraining, scale: Scale, seed: int) -> Run:
    model = target.model + scale.suffix
    arguments = (
        *("--model", model, "--shards", Output(shards_run(target.masks, scale, seed)), *scale.pretrain),
        *option("--saliency-prompt", *target.options),
        *option("--prompts", None if target.prompts else "off"),
        *option("--epochs", scale.pretrain_epochs),
        *("--seed", str(seed)),
    )
    return Run("pretrain", f"pretrain-{model}-{_describe(target, scale)}-seed{seed}", arguments, configs="**/*.py")


def finetuning_run(target: FineTuning, scale: Scale, seed: int) -> Run:
    model, epochs = target.model + scale.suffix, scale.finetuning_epochs(target.epochs)
    data, dataset = data_run(target.dataset, scale), scale.datasets[target.dataset]
    init: tuple[str | Output, ...] = ("--init", str(target.init))
    described = str(target.init)
    if pretraining := target.pretraining:
        checkpoint = Output(pretraining_run(pretraining, scale, seed))
        init = ("--init", "sp" if pretraining.prompts else "pseudo", "--checkpoint", checkpoint)
        described = _describe(pretraining, scale)
    arguments = (
        *("--model", model, "--dataset", dataset, *scale.finetune, *init),
        *(("--data-root", Output(data, "ctw1500")) if scale.images else ()),
        *option("--epochs", epochs),
        *("--seed", str(seed)),
    )
    images = scale.training_images(target.dataset) if scale.images else ""
    length = "" if epochs == scale.finetune_epochs else f"-{epochs}epochs"
    label = f"finetune-{dataset}{images}-{model}-{described}{length}-seed{seed}"
    return Run("finetune", label, arguments, configs="**/*.py", after=() if scale.images else (data,))


def class_agnostic_run(target: ClassAgnostic, scale: Scale, seed: int) -> Run:
    """The evaluation of a pre-trained detector; at demo scale on the demo set's labelled images of objects."""
    pretrained, data = pretraining_run(target.pretraining, scale, seed), data_run(target.dataset, scale)
    images: tuple[str | Output, ...] = ("--dataset", scale.datasets[target.dataset])
    if scale.images:  # all of the images: none was trained on
        objects = Output(data, demo_set.OBJECTS)
        images = ("--dataset", objects, "--test-labels", objects)
    label = f"class_agnostic-{pretrained.label.removeprefix('pretrain-')}"
    arguments = ("--work-dir", Output(pretrained), "--class-agnostic", *images)
    return Run("evaluate", label, arguments, "--out", file="scores.json", after=() if scale.images else (data,))


def _describe(target: Pretraining, scale: Scale) -> str:
    """A pre-training as part of a name, without its model."""
    changes = [text.replace("=", "_") for text in target.options]
    return "-".join([generator_of(target.masks, scale), *changes, *([] if target.prompts else ["pseudo"])])
