"""Maps a row to the run that its numbers come from: one of the project's commands, after the runs that it needs."""

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from pipelines.demo_data import demo_set
from pipelines.demo_data.demo_set import Counts
from pipelines.experiments.paper import Experiment, Row
from pipelines.experiments.scales import Given, Scale

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
FREESOLO = "min_score=0.3"  # of the masks that FreeSOLO's second round is trained on
# The option that says where a command writes, and the file in its run's directory that it writes last.
OUTPUTS = {
    "data": ("--data-root", demo_set.STAMP),
    "proposals": ("--shards", "manifest.json"),
    "evaluate": ("--out", "scores.json"),
}


@dataclass(frozen=True)
class Run:
    """One command. Equal runs are one run, whichever table needs them."""

    root: Path  # of the plan
    name: str
    words: tuple[str, ...]  # after `python -m pipelines`
    result: Path | None  # the file that it writes last; None: real data, which is in the user's own folder
    after: tuple["Run", ...]  # runs that it needs

    @property
    def directory(self) -> Path:
        return self.root / "runs" / self.name


@cache
def config_digest(root: Path, pattern: str) -> str:
    """SHA-256, in hex, of all config files that match a glob pattern."""
    files = [(str(path.relative_to(root)), path.read_text(encoding="utf-8")) for path in sorted(root.glob(pattern))]
    return hashlib.sha256(json.dumps(files).encode()).hexdigest()


def in_order(runs: Iterable[Run]) -> list[Run]:
    """The runs and those that they need, each once and after what it needs."""
    return list(dict.fromkeys(needed for run in runs for needed in (*in_order(run.after), run)))


def option(name: str, value: object) -> tuple[str, ...]:
    """An option and its value; nothing without one."""
    return (name, str(value)) if value else ()


@dataclass(frozen=True)
class Plan:
    """The runs at a scale, and what they run on, which does not change their names."""

    scale: Scale
    root: Path  # holds `runs`, `tables` and `figures`
    device: str | None = None  # `cpu` or `cuda`; None: the GPU if there is one
    gpus: int | None = None  # processes of training
    batch_size: int | None = None  # images of a process at a time; None: the schedule's

    def runs(self, experiment: Experiment, seeds: Sequence[int]) -> list[Run]:
        """All runs of a table or figure, one seed after the other."""
        rows, shown_seeds = self.scale.rows(experiment), experiment.shown_seeds(seeds)
        runs = [self.run(row, seed) for seed in shown_seeds for row in rows]
        shown = [self.shards("saliency", seeds[0], shown=True)] if experiment.picture == "results" else []
        return in_order([*runs, *shown])

    def run(self, row: Row, seed: int) -> Run:
        """The run whose scores are a row's numbers, at a scale that has what the row needs."""
        return self.evaluation(row, seed) if row.epochs == 0 else self.finetuning(row, seed)

    def data(self, dataset: str) -> Run:
        """The preparation of a labelled dataset."""
        counts = self.scale.datasets[dataset]
        if isinstance(counts, str):
            return self._run("data", f"data-{counts}", ["--dataset", counts])
        numbers = list(map(str, astuple(counts)))
        label = f"data-v{demo_set.VERSION}-{'-'.join(numbers)}"  # another version has other images
        return self._run("data", label, ["--dataset", "demo", "--count", *numbers])

    def shards(self, masks: str, seed: int, shown: bool = False, trained: Run | None = None) -> Run:
        """Pseudo masks of the unlabeled images; those that are shown, of the demo's test images, which have text.

        Args:
            masks: which generator makes them.
            seed: of random masks.
            shown: whether they are to be shown.
            trained: for `checkpoint`, the pre-training whose model makes them.
        """
        scale, generator = self.scale, self.scale.generator(masks)
        data: tuple[Run, ...] = () if scale.unlabeled else (self.data("coco10"),)
        images = scale.unlabeled or data[0].directory / ("ctw1500/test_images" if shown else "unlabeled")
        settings = {"random": f"seed={seed}", "import": f"file={json.dumps(scale.freesolo)}", "checkpoint": FREESOLO}
        words = ["--images", images, "--backbone", scale.backbone, *scale.proposals, "--generator", generator]
        label = f"shards-{generator}{'-test' * bool(shown and data)}{f'-seed{seed}' * (generator == 'random')}"
        if trained:
            words += ["--checkpoint", trained.directory]
            label += f"-of-{trained.name}"
        words += option("--set", settings.get(generator))
        after = (*data, *filter(None, (trained,)))
        return self._run("proposals", label, words, after, f"proposals/{generator}.toml")

    def pseudo_masks(self, row: Row, seed: int) -> Run:
        """What a row is pre-trained on; in a second round, what the model of the first makes."""
        *earlier, masks = row.masks.split()
        trained = self.pretraining(replace(row, masks=" ".join(earlier)), seed) if earlier else None
        return self.shards(masks, seed, trained=trained)

    def pretraining(self, row: Row, seed: int) -> Run:
        scale = self.scale
        made: tuple[Run, ...] = () if scale.shards else (self.pseudo_masks(row, seed),)
        words = [
            *("--model", row.model + scale.suffix, "--shards", scale.shards or made[0].directory),
            *(*option("--schedule", scale.pretrain_schedule), *option("--image-size", scale.image_size)),
            *option("--tiles", scale.tiles),
            *(("--saliency-prompt", *row.options) if row.options else ()),
            *(("--prompts", "off") if row.init == "pseudo" else ()),
            *(*option("--epochs", scale.pretrain_epochs), "--seed", str(seed)),
        ]
        return self._run("pretrain", f"pretrain-{self._described(row)}-seed{seed}", words, made, "**/*.py")

    def finetuning(self, row: Row, seed: int) -> Run:
        scale, dataset = self.scale, self.scale.datasets[row.dataset]
        data: tuple[Run, ...] = () if isinstance(dataset, Given) else (self.data(row.dataset),)
        pretrained = (self.pretraining(row, seed),) if row.masks else ()
        # A part of the images is trained on for as many steps as all are, unless the row says how long.
        epochs = row.epochs if row.images else min(filter(None, (row.epochs, scale.finetune_epochs)), default=None)
        demo = dataset if isinstance(dataset, Counts) else None
        words = [
            *("--model", row.model + scale.suffix, "--dataset", "demo" if demo else dataset, *scale.labels),
            *(*option("--schedule", scale.finetune_schedule), *option("--image-size", scale.image_size)),
            *option("--tiles", scale.tiles),
            *("--init", row.init, *(("--checkpoint", pretrained[0].directory) if pretrained else ())),
            *(("--data-root", data[0].directory / "ctw1500") if demo else ()),
            *option("--train-images", row.images),
            *(*option("--epochs", epochs), "--seed", str(seed)),
        ]
        name = f"demo{demo.train}" if demo else scale.name if isinstance(dataset, Given) else dataset
        part = f"-{row.images}images" if row.images else ""
        length = f"-{epochs}epochs" if epochs not in (None, scale.finetune_epochs) else ""
        label = f"finetune-{name}{part}-{self._described(row)}{length}-seed{seed}"
        return self._run("finetune", label, words, (*data, *pretrained), "**/*.py")

    def evaluation(self, row: Row, seed: int) -> Run:
        """The evaluation of a pre-trained detector, class-agnostic; at demo scale on all labelled images of objects."""
        pretrained, dataset = self.pretraining(row, seed), self.scale.datasets[row.dataset]
        data: tuple[Run, ...] = () if isinstance(dataset, Given) else (self.data(row.dataset),)
        labels = data[0].directory / demo_set.OBJECTS if isinstance(dataset, Counts) else dataset
        words = ["--work-dir", pretrained.directory, "--class-agnostic", "--dataset", labels]
        words += [] if isinstance(dataset, str) else ["--test-labels", labels]
        return self._run("evaluate", f"class_agnostic-{self._described(row)}-seed{seed}", words, (*data, pretrained))

    def _described(self, row: Row) -> str:
        """The model and its initialisation, as part of a name."""
        model, pseudo = Path(row.model + self.scale.suffix).stem, ["pseudo"] * (row.init == "pseudo")
        init = [*map(self.scale.generator, row.masks.split()), *row.options] if row.masks else [row.init]
        return "-".join([model, *init, *pseudo]).replace("=", "_")

    def _named(self, word: Any) -> Any:
        """What of a command's word is in the name of its run: of files of the user, what they hold."""
        if isinstance(word, Given):
            return word.content
        if str(word).endswith(".py"):  # a model or schedule that is not in `configs`
            return Path(word).read_text(encoding="utf-8")
        return str(word.relative_to(self.root)) if isinstance(word, Path) else word

    def _run(
        self, command: str, label: str, words: Sequence[Any], after: tuple[Run, ...] = (), configs: str = ""
    ) -> Run:
        """A run, its name with a digest of what decides its result: words (paths are in other runs), config files."""
        settings = [command, label, list(map(self._named, words)), configs and config_digest(CONFIGS, configs)]
        name = f"{label}-{hashlib.sha256(json.dumps(settings).encode()).hexdigest()[:6]}"
        directory, (output, last) = self.root / "runs" / name, OUTPUTS.get(command, ("--work-dir", "finished.json"))
        result = None if command == "data" and self.scale.unlabeled else directory / last
        given: list[Any] = [command, *words]
        if result:
            given += [output, result if output == "--out" else directory]
        if command != "data":
            given += option("--device", self.device)
        if output == "--work-dir":  # a training run
            given += [*option("--gpus", self.gpus), *option("--batch-size", self.batch_size)]
        return Run(self.root, name, tuple(map(str, given)), result, after)
