"""A run's work directory: its config, its latest checkpoint, and its result. It belongs to one run.

- `config.py`: the composed config, plain MMDetection; `config.json`: the same to be read without running code.
- `initial.pth`: the weights at step 0, every tensor of the model.
- `transfer.json`: where those came from: what was taken, what was left and why, every tensor by name.
- `transfer.txt`: the same as a table, by parts of the network, as it is printed.
- `commands.jsonl`: what was typed, once for each start (`provenance.py`).
- `iter_N.pth`: checkpoints; `last_checkpoint` names the latest.
- `best_N.pth`: the weights with the best validation AP; `best.json` names them.
- `<time>/`: MMEngine's log and scalars of each start.
- `non_finite.json`: written when a loss was NaN or infinite.
- `finished.json`: written when the run ended well.
"""

import json
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.utils import import_modules_from_strings

from stage1_proposals.common.errors import UserError
from stage1_proposals.common.files import atomic_write, write_json, writing
from stage2_training.engine.best_checkpoint import RECORD, Best
from stage2_training.engine.checkpoints import step_checkpoints
from stage2_training.engine.divergence import NON_FINITE
from stage2_training.runs.init_options import RUN_CONFIG, check_run
from stage2_training.runs.provenance import COMMANDS

SETTINGS = "config.json"
RESUME_HINT = "finished checkpoints are kept, run again to go on"

# Kept in each `config.py`, and raised when this program can no longer go on with a config of before. Configs without
# it named types and modules that are gone.
CONFIG_VERSION = 2

# Settings that a run may change when it is continued: they do not change what is learned.
CHANGEABLE = frozenset(
    {
        "config_version",  # checked by itself
        "work_dir",
        "load_from",
        "resume",
        "env_cfg",
        "find_unused_parameters",
        "default_hooks.logger",
        "default_hooks.checkpoint",
        "default_hooks.best",
        "training_images",  # said of `labels`
        "log_processor",
        "model.test_cfg.one_piece",  # of masks that are found
        "model.test_cfg.rcnn.one_piece",
        "visualizer",
        "train_dataloader.batch_size",  # `train_cfg.total_batch` decides how many images make a step
        "train_dataloader.num_workers",
        "train_dataloader.persistent_workers",
        "train_dataloader.dataset.shards",  # `pseudo_labels` says what they hold
        "train_dataloader.dataset.image_root",
        "val_dataloader.num_workers",
        "val_dataloader.persistent_workers",
        "test_dataloader.num_workers",
        "test_dataloader.persistent_workers",
    }
)

# Where one of these differs, other settings follow from it: the message names it first, as this.
CAUSES = {
    "pseudo_labels": "pseudo labels",
    "labels": "labels",
    "initialisation": "initial weights",
    "tiles": "tiles (--tiles, TILES=)",
}


@dataclass(frozen=True)
class Result:
    """The result of a finished run, as `finished.json` holds it.

    Attributes:
        checkpoint: path of the last checkpoint.
        outcome: further values by name: the epochs of pre-training, or the scores after fine-tuning's last epoch.
    """

    checkpoint: str
    outcome: Mapping[str, Any]

    def write(self, path: Path) -> None:
        """Write it as flat JSON.

        Raises:
            UserError: the file cannot be written.
        """
        with writing(path, RESUME_HINT):
            write_json(path, {**self.outcome, "checkpoint": self.checkpoint})

    @classmethod
    def read(cls, path: Path) -> "Result | None":
        """None where there is no such file, or it holds no result."""
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            return cls(values.pop("checkpoint"), values)
        except (FileNotFoundError, ValueError, KeyError, AttributeError, TypeError):
            return None


class WorkDir:
    """The directory of one training run.

    Args:
        path: `create_or_verify` creates it.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.config_file = self.path / RUN_CONFIG
        self.initial = self.path / "initial.pth"
        self.transfer = self.path / "transfer.json"
        self.finished = self.path / "finished.json"

    def create_or_verify(self, config: Config) -> None:
        """Write the run's config, or check that this directory's run is the same.

        A run that left neither checkpoint nor result is started again, with any settings. Only one process may call
        this for a directory, under an exclusive lock.

        Raises:
            UserError: the directory holds a run with other settings (the message names the first difference), or a run
                of an earlier version; or it cannot be written.
        """
        started = self.latest_checkpoint() is not None or self.result() is not None
        if started:
            self._check_same(self._load_config(), config)
            if self.result() is not None:
                return
        config.config_version = CONFIG_VERSION
        config.work_dir = str(self.path)
        config.load_from = str(self.initial)
        text = config.dump()
        with writing(self.config_file):
            if not started and self.config_file.exists():
                self._clear()
            for leftover in self.path.glob(".*.tmp"):  # of a write that was killed
                leftover.unlink()
            with atomic_write(self.config_file) as scratch:
                scratch.write_text(text, encoding="utf-8")
            values = json.loads(json.dumps(config.to_dict(), skipkeys=True, default=str))
            write_json(self.path / SETTINGS, values)

    def _clear(self) -> None:
        """Remove what a run without a checkpoint left; its logs would be read as those of the next."""
        self.initial.unlink(missing_ok=True)
        for name in (COMMANDS, NON_FINITE, RECORD):
            (self.path / name).unlink(missing_ok=True)
        for checkpoint in self.path.glob("best_*.pth"):
            checkpoint.unlink()
        for log in self.path.glob("*/vis_data"):
            shutil.rmtree(log.parent)

    def read_config(self) -> Config:
        """The run's config, after importing the modules that it names.

        Raises:
            UserError: no run was started here, or an earlier version of this program wrote its config.
        """
        config = self._load_config()
        import_modules_from_strings(**config.get("custom_imports", {"imports": []}))
        return config

    def _load_config(self) -> Config:
        check_run(self.path)
        config = Config.fromfile(self.config_file, import_custom_modules=False)
        if config.get("config_version") != CONFIG_VERSION:
            raise UserError(
                f"{self.path}: holds a run of another version of this program, which cannot resume it; "
                f"start a new run in another --work-dir (WORK_DIR=), or evaluate its checkpoints with --model, "
                f"--dataset and --checkpoint"
            )
        return config

    def _check_same(self, old: Config, new: Config) -> None:
        stored, asked = settings(old.to_dict()), settings(new.to_dict())
        differing = [key for key in {**stored, **asked} if stored.get(key) != asked.get(key)]
        if not differing:
            return
        kind, key = next(
            ((kind, key) for cause, kind in CAUSES.items() for key in differing if _is_below(key, cause)),
            ("settings", differing[0]),
        )
        more = f" (and {len(differing) - 1} more)" if len(differing) > 1 else ""
        raise UserError(
            f"{self.path} holds a run with other {kind}: {key} is {stored.get(key, 'not set')!r} there, "
            f"{asked.get(key, 'not set')!r} now{more}; give the same {kind} to go on, or another --work-dir "
            f"(WORK_DIR=) to begin a second run"
        )

    def latest_checkpoint(self) -> Path | None:
        """The checkpoint to go on from; None before the first."""
        try:
            name = Path((self.path / "last_checkpoint").read_text().strip()).name
        except FileNotFoundError:
            return None
        # By name only: the directory may have been moved since.
        if name and (self.path / name).is_file():
            return self.path / name
        # The file is written before its name, so the name may be missing.
        return max(step_checkpoints(self.path), default=(0, None))[1]

    def best(self) -> Best | None:
        """The best evaluation of the run, which has a checkpoint; None before one that found anything."""
        return Best.read(self.path)

    def require_checkpoint(self, last: bool = False) -> Path:
        """The checkpoint to use: that of the best validation AP; the latest where there is none, or by `last`.

        Raises:
            UserError: there is none.
        """
        best = None if last else self.best()
        checkpoint = self.path / best.checkpoint if best else self.latest_checkpoint()
        if checkpoint is None:
            raise UserError(f"{self.path}: has no checkpoint yet")
        return checkpoint

    def finish(self, result: Result) -> None:
        """Mark the run as finished.

        Raises:
            UserError: the directory cannot be written.
        """
        result.write(self.finished)

    def result(self) -> Result | None:
        """The run's result; None while it is not finished."""
        return Result.read(self.finished)


def find_checkpoint(source: str | Path, last: bool = False) -> Path:
    """The checkpoint of this path, or the best of the run in this directory, or its latest (`require_checkpoint`).

    Raises:
        UserError: there is none, or the last of a file is asked for.
    """
    checkpoint = WorkDir(source).require_checkpoint(last) if Path(source).is_dir() else Path(source)
    if not checkpoint.is_file():
        raise UserError(f"{checkpoint}: no such checkpoint")
    if last and not Path(source).is_dir():
        raise UserError(f"--last: {source} is one checkpoint; leave the option out, or name the run's directory")
    return checkpoint


def settings(config: dict[str, Any]) -> dict[str, Any]:
    """The settings, by dotted key, that make a config this run and no other: all but those of `CHANGEABLE`."""
    return {
        key: value
        for key, value in flatten(config)
        if CHANGEABLE.isdisjoint(accumulate(key.split("."), "{}.{}".format))
    }


def flatten(value: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """A nested config as (dotted key, plain value) pairs; tuples and lists are alike, as in JSON."""
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from flatten(inner, f"{prefix}.{key}" if prefix else str(key))
    elif isinstance(value, list | tuple) and value:
        for index, inner in enumerate(value):
            yield from flatten(inner, f"{prefix}.{index}")
    else:
        yield prefix, list(value) if isinstance(value, tuple) else value


def _is_below(key: str, ancestor: str) -> bool:
    return key == ancestor or key.startswith(ancestor + ".")
