"""What a run's directory says about the run: how far it is, its settings, commands, scores and learning curve."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stage1_proposals.common.files import in_use
from stage2_training.engine.divergence import NON_FINITE
from stage2_training.evaluation.scores import SCORE_NAMES, Point, class_scores, learning_curve, read_scalars
from stage2_training.runs.provenance import COMMANDS, CommandRecord
from stage2_training.runs.work_dir import SETTINGS, WorkDir

# Files that only the directory of a run has.
RUN_FILES = frozenset({COMMANDS, "finished.json", "initial.pth", "transfer.json", "last_checkpoint"})
NOT_RECORDED = "not recorded"  # in runs of before `config.json` was written


@dataclass
class RunSummary:
    """One training run; nothing of it is executed.

    Attributes:
        path: its directory.
        settings: the composed config; empty if it was not recorded as JSON.
        commands: its starts.
        curve: its evaluations: `epoch` and scores in [0, 1] or -1.
        scores: the result's or, in a run that is not finished, the latest.
        class_scores: those of each class, see `scores.class_scores`.
        last_step, last_loss: the latest that it has logged; 0 and None before the first.
        status: finished, running, failed (its loss was NaN or infinite), interrupted or not started.
        problems: a line for each file that is damaged and was taken for missing.
    """

    path: Path
    settings: Mapping[str, Any] = field(default_factory=dict)
    commands: Sequence[CommandRecord] = ()
    curve: Sequence[Point] = ()
    scores: Mapping[str, float] = field(default_factory=dict)
    class_scores: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    last_step: float = 0
    last_loss: float | None = None
    status: str = "not started"
    problems: list[str] = field(default_factory=list)

    @classmethod
    def read(cls, path: Path) -> "RunSummary":
        """Read a directory that `is_run`.

        Raises:
            OSError: a file cannot be opened.
        """
        run = cls(path, commands=CommandRecord.read_all(path))
        run.settings = run._json(SETTINGS, dict)
        starts = read_scalars(path)
        for row in (row for rows in starts for row in rows if "loss" in row):
            run.last_step, run.last_loss = row["step"], row["loss"]
        points = learning_curve(starts) or run._json("curve.json", list)
        run.curve = [point for point in points if isinstance(point, dict) and _is_number(point.get("epoch"))]
        result = run._json("finished.json", dict)
        scores = result if "checkpoint" in result else (run.curve or [{}])[-1]
        run.scores = {name: scores[name] for name in SCORE_NAMES if _is_number(scores.get(name))}
        run.class_scores = class_scores({name: value for name, value in scores.items() if _is_number(value)})
        failed_step = run._json(NON_FINITE, dict).get("step")
        if "checkpoint" in result:
            run.status = "finished"
        elif in_use(path):
            run.status = "running"
        elif isinstance(failed_step, int) and failed_step > run.last_step:  # else it continued past that step
            run.status = "failed"
        elif run.last_step or WorkDir(path).latest_checkpoint():
            run.status = "interrupted"
        return run

    def _json(self, name: str, kind: type) -> Any:
        """A JSON file's value; an empty one when it does not exist or is not JSON of this kind."""
        try:
            value = json.loads((self.path / name).read_text(encoding="utf-8"))
        except FileNotFoundError:
            return kind()
        except (ValueError, RecursionError) as error:
            self.problems.append(f"{name}: not JSON ({type(error).__name__})")
            return kind()
        if not isinstance(value, kind):
            self.problems.append(f"{name}: is not a JSON {kind.__name__}")
            return kind()
        return value

    def setting(self, path: str, default: Any = "-") -> Any:
        """The config's value at a dotted path."""
        value: Any = self.settings
        for key in path.split("."):
            if not isinstance(value, dict) or key not in value:
                return default
            value = value[key]
        return value

    @property
    def pretraining(self) -> bool:
        """Whether this is pre-training on pseudo labels."""
        if not self.settings:
            return any("pretrain" in command.argv for command in self.commands)
        return "pseudo_labels" in self.settings

    @property
    def model(self) -> str:
        """The detector and its backbone."""
        if not self.settings:
            return NOT_RECORDED
        backbone = self.setting("model.backbone.model_name", f"ResNet-{self.setting('model.backbone.depth')}")
        return f"{str(self.setting('model.type')).removeprefix('SaliencyPrompt')}, {backbone}"

    @property
    def dataset(self) -> str:
        """The labels that fine-tuning is evaluated on: runs of one dataset are comparable."""
        root, labels = (self.setting(f"val_dataloader.dataset.{key}", None) for key in ("data_root", "ann_file"))
        return "/".join(str(part) for part in (root, labels) if part) or NOT_RECORDED


def is_run(files: Sequence[str]) -> bool:
    """Whether these are the names of the files in a run's directory."""
    return bool(RUN_FILES.intersection(files)) or (
        "config.py" in files and bool({SETTINGS, ".lock"}.intersection(files))
    )


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and value == value
