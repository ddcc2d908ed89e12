"""A training run as the report shows it, read from its directory."""

import re
from dataclasses import MISSING, asdict, dataclass, fields
from itertools import pairwise
from pathlib import Path
from typing import Any

from pipelines.reporting.config import at, read_config
from pipelines.reporting.log import Log, read_log
from pipelines.reporting.notes import Notes
from stage1_proposals.common.files import in_use
from stage2_training.runs.provenance import CommandRecord
from stage2_training.runs.work_dir import NON_FINITE, WorkDir
from stage2_training.saliency_prompt.settings import SaliencyPromptSettings

TEXT_CHARACTERS = 20_000
TRANSFER = {"taken": "taken", "left": "left", "missing": "own initialisation"}
PROMPT_DEFAULTS = {field.name: field.default for field in fields(SaliencyPromptSettings)}
SOURCE = re.compile(r"Initial weights: (.*)")


@dataclass(frozen=True)
class Failure:
    """A step whose loss or gradient was no number: the losses of each process, and the images as text."""

    step: int
    losses: list[dict[str, Any]]
    images: list[str]


@dataclass(frozen=True)
class Run:
    """One run.

    Attributes:
        path: its directory.
        name: that, relative to the report's.
        config: its composed config, nested; `config_text` the file.
        commands: every start, as `stage2_training.runs.provenance` has them.
        status: `finished`, `running`, `interrupted`, `failed` or `not begun`.
        told: the status in words.
        scores: the last ones, in [0, 1] or -1 by name; of a run that is not finished, those it came to.
        log: losses, learning curve, time.
        checkpoints: file name to bytes.
        transfer: how many tensors were `taken`, `left` and got their `own initialisation`; `transfer_text` tells more.
        failure: what was written when a loss was no number.
    """

    path: Path
    name: str
    config: dict[str, Any]
    config_text: str
    commands: list[dict[str, Any]]
    status: str
    told: str
    scores: dict[str, float]
    log: Log
    checkpoints: dict[str, int]
    transfer: dict[str, int]
    transfer_text: str
    failure: Failure | None

    @property
    def pretraining(self) -> bool:
        return "pseudo_labels" in self.config

    @property
    def model(self) -> str:
        """As its command names it, else its type."""
        return self._typed("--model") or str(at(self.config, "model.type", "?")).removeprefix("SaliencyPrompt")

    @property
    def dataset(self) -> str:
        """What its labels are called: by its command, else by their folder."""
        root = str(at(self.config, "train_dataloader.dataset.data_root", "") or "")
        return self._typed("--dataset") or Path(root).name or "?"

    @property
    def labels(self) -> tuple[str, ...]:
        """Which files its labels are in; runs with the same are comparable."""
        loaders = ("train_dataloader.dataset", "val_dataloader.dataset")
        return tuple(str(at(self.config, f"{loader}.{key}")) for loader in loaders for key in ("data_root", "ann_file"))

    @property
    def init(self) -> str:
        kind = str(at(self.config, "initialisation.kind", "?"))
        return str(at(self.config, "initialisation.name", kind)) if kind == "backbone" else kind

    @property
    def prompts(self) -> str:
        """How prompts find their kernels, and every other setting of Saliency Prompt that is not the default."""
        there = at(self.config, "model.saliency_prompt")
        if not isinstance(there, dict):
            return "off"
        others = [name for name in there if name != "matching" and PROMPT_DEFAULTS.get(name, MISSING) is not MISSING]
        changed = [f"{name}={there[name]}" for name in others if there[name] != PROMPT_DEFAULTS[name]]
        return ", ".join([str(there.get("matching", "?")), *changed])

    @property
    def epochs(self) -> Any:
        return at(self.config, "train_cfg.max_epochs", "?")

    @property
    def seed(self) -> Any:
        return at(self.config, "randomness.seed", "?")

    @property
    def source(self) -> Path | None:
        """The file that its initial weights are from, where that is a checkpoint and was noted."""
        found = SOURCE.match(self.transfer_text)
        return Path(found[1]) if found and found[1].endswith(".pth") else None

    def origin(self) -> Path | None:
        """The folder that the run's relative paths are relative to, if the run still lies in it as it did."""
        there = Path(str(self.config.get("work_dir", "")))
        parts = self.path.resolve().parts
        fits = there.parts and not there.is_absolute() and parts[-len(there.parts) :] == there.parts
        return Path(*parts[: -len(there.parts)]) if fits else None

    def _typed(self, option: str) -> str | None:
        """The value of an option in the last command; of a path, the file's name without its ending."""
        words = self.commands[-1]["argv"] if self.commands else []
        for word, following in pairwise([*words, ""]):
            if word == option:
                return Path(following).stem
            if word.startswith(f"{option}="):
                return Path(word.removeprefix(f"{option}=")).stem
        return None


def read_run(path: Path, notes: Notes) -> Run | None:
    """The run in a directory; None, with a note, when its config cannot be read."""
    config: dict[str, Any] | None = None
    with notes.on(path / "config.py"):
        config = read_config(path / "config.py")
    if config is None:
        return None
    log = Log({}, [], 0, 0, 0.0)
    with notes.on(path):
        log = read_log(path)
    commands: list[dict[str, Any]] = []
    with notes.on(path / "commands.jsonl"):
        commands = [asdict(record) for record in CommandRecord.read_all(path)]
    result = notes.json(path / "finished.json", dict)
    failure = _failure(path / NON_FINITE, notes)
    if result is not None or (failure and log.step >= failure.step):  # it went on well
        failure = None
    status, told = _status(path, log, at(config, "train_cfg.max_epochs", "?"), result, failure)
    curve = log.curve or _points(notes.json(path / "curve.json", list))
    transfer = notes.json(path / "transfer.json", dict) or {}
    return Run(
        path=path,
        name=notes.shown(path),
        config=config,
        config_text=(path / "config.py").read_text(encoding="utf-8"),
        commands=commands,
        status=status,
        told=told,
        scores=_scores(result or (curve[-1] if curve else {})),
        log=Log(log.losses, curve, log.epoch, log.step, log.seconds),
        checkpoints={file.name: file.stat().st_size for file in sorted(path.glob("*.pth"), key=_age)},
        transfer={
            told: len(transfer[kind]) for kind, told in TRANSFER.items() if isinstance(transfer.get(kind), list | dict)
        },
        transfer_text=_text(path / "transfer.txt", notes),
        failure=failure,
    )


def _status(
    path: Path, log: Log, epochs: Any, result: dict[str, Any] | None, failure: Failure | None
) -> tuple[str, str]:
    if result is not None:
        return "finished", "finished"
    if in_use(path):
        return "running", f"running, epoch {max(1, log.epoch)} of {epochs}"
    if failure is not None:
        return "failed", f"failed, NaN or Inf at step {failure.step}"
    if log.step:
        return "interrupted", f"interrupted in epoch {log.epoch} of {epochs}"
    if WorkDir(path).latest_checkpoint() is not None:
        return "interrupted", "interrupted"
    return "not begun", "not begun"


def _failure(path: Path, notes: Notes) -> Failure | None:
    report = notes.json(path, dict)
    if report is not None:
        with notes.on(path):
            images = [image for process in report["processes"] for image in process["images"]]
            losses = [dict(process["losses"]) for process in report["processes"]]
            return Failure(int(report["step"]), losses, [f"{image['img_id']}  {image['img_path']}" for image in images])
    return None


def _scores(values: dict[str, Any]) -> dict[str, float]:
    return {name: value for name, value in values.items() if re.match("(box_)?A[PR]", name) and _is_number(value)}


def _points(points: list[Any] | None) -> list[dict[str, float]]:
    """The sound points of a `curve.json`, for runs whose logs have gone."""
    sound = [point for point in points or () if isinstance(point, dict) and _is_number(point.get("epoch"))]
    return [{name: value for name, value in point.items() if _is_number(value)} for point in sound]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and value == value


def _age(checkpoint: Path) -> tuple[int, str]:
    """`initial.pth` first, then by step."""
    step = checkpoint.stem.rsplit("_", 1)[-1]
    return int(step) if step.isdecimal() else -1, checkpoint.name


def _text(path: Path, notes: Notes) -> str:
    if not path.exists():
        return ""
    with notes.on(path):
        return path.read_text(encoding="utf-8")[:TEXT_CHARACTERS]
    return ""
