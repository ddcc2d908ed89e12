"""A run's work directory: its config, its latest checkpoint, whether it is finished, and that it is one run's only.

- `config.py`: the composed config, plain MMDetection.
- `initial.pth`: the weights at step 0, every tensor of the model.
- `transfer.json`: where those came from: what was taken, what was left and why, every tensor by name.
- `transfer.txt`: the same as a table, by parts of the network, as it is printed.
- `commands.jsonl`: what was typed, once for each start (`commands.py`).
- `iter_N.pth`: checkpoints; `last_checkpoint` names the latest.
- `<time>/`: MMEngine's log and scalars of each start.
- `non_finite.json`: written when a loss was NaN or infinite.
- `finished.json`: written when the run ended well.
"""

import json
import os
import shutil
from collections.abc import Iterator
from itertools import accumulate
from pathlib import Path
from typing import Any

from mmengine.config import Config

from stage1_proposals.common.errors import UserError
from stage1_proposals.common.files import write_json, writing
from stage2_training.runs.provenance import COMMANDS

NON_FINITE = "non_finite.json"
GO_ON = "finished checkpoints are kept, run again to go on"

# Settings that a run may change when it is continued: they do not change what is learned.
FREE = frozenset(
    {
        "work_dir",
        "load_from",
        "env_cfg",
        "find_unused_parameters",
        "default_hooks.logger",
        "default_hooks.checkpoint",
        "log_processor",
        "visualizer",
        "train_dataloader.batch_size",  # `train_cfg.total_batch` says how many make a step
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

# Differences that explain others, and what the message calls them.
TOLD_FIRST = {"pseudo_labels": "pseudo labels", "labels": "labels", "initialisation": "initial weights"}


class WorkDir:
    """The directory of one training run.

    Args:
        path: made by `claim`.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.config_file = self.path / "config.py"
        self.initial = self.path / "initial.pth"
        self.transfer = self.path / "transfer.json"

    def claim(self, config: Config) -> None:
        """Write the run's config, or check that this directory's run is the same.

        A run that left neither checkpoint nor result begins anew, with any settings. Whoever claims is the only one to
        write here.

        Raises:
            UserError: the directory holds a run with other settings, the message names the first difference; or it
                cannot be written.
        """
        begun = self.latest_checkpoint() is not None or self.result() is not None
        if begun:
            self._check_same(self.read_config(), config)
            if self.result() is not None:
                return
        config.work_dir = str(self.path)
        config.load_from = str(self.initial)
        text = config.dump()
        with writing(self.config_file):
            if not begun and self.config_file.exists():
                self.initial.unlink(missing_ok=True)
                for name in (COMMANDS, NON_FINITE):
                    (self.path / name).unlink(missing_ok=True)
                for log in self.path.glob("*/vis_data"):  # else its scores would count as this run's
                    shutil.rmtree(log.parent)
            for leftover in self.path.glob(".*.tmp"):  # of a write that was killed
                leftover.unlink()
            scratch = self.path / ".config.py.tmp"
            scratch.write_text(text)
            os.replace(scratch, self.config_file)

    def read_config(self) -> Config:
        """The run's config, with the modules it names imported.

        Raises:
            UserError: no run was started here.
        """
        if not self.config_file.is_file():
            raise UserError(f"{self.path}: no run here (no {self.config_file.name})")
        return Config.fromfile(self.config_file)

    def _check_same(self, there: Config, asked: Config) -> None:
        old, new = settings(there.to_dict()), settings(asked.to_dict())
        differing = [key for key in {**old, **new} if old.get(key) != new.get(key)]
        differing.sort(key=lambda key: key.startswith("param_scheduler"))  # it follows from others
        if differing:
            # Where the labels are others, so is much that follows from them.
            kind, key = next(
                ((kind, key) for part, kind in TOLD_FIRST.items() for key in differing if _below(key, part)),
                ("settings", differing[0]),
            )
            more = f" (and {len(differing) - 1} more)" if len(differing) > 1 else ""
            raise UserError(
                f"{self.path} holds a run with other {kind}: {key} is {old.get(key, 'not set')!r} there, "
                f"{new.get(key, 'not set')!r} now{more}; give the same {kind} to go on, or another --work-dir "
                f"(WORK_DIR=) to begin a second run"
            )

    def latest_checkpoint(self) -> Path | None:
        """The checkpoint to go on from or to use; None before the first."""
        try:
            name = Path((self.path / "last_checkpoint").read_text().strip()).name
        except FileNotFoundError:
            return None
        # By name only: the directory may have been moved since.
        if name and (self.path / name).is_file():
            return self.path / name
        # The name may be missing where the file is not: it is written after it.
        return max(self.path.glob("iter_*.pth"), key=lambda path: int(path.stem.removeprefix("iter_")), default=None)

    def require_checkpoint(self) -> Path:
        """The `latest_checkpoint`.

        Raises:
            UserError: there is none.
        """
        checkpoint = self.latest_checkpoint()
        if checkpoint is None:
            raise UserError(f"{self.path}: has no checkpoint yet")
        return checkpoint

    def finish(self, result: dict[str, Any]) -> None:
        """Mark the run as finished.

        Raises:
            UserError: the directory cannot be written.
        """
        with writing(self.path / "finished.json", GO_ON):
            write_json(self.path / "finished.json", result)

    def result(self) -> dict[str, Any] | None:
        """What `finish` was given; None while the run is not finished."""
        try:
            return json.loads((self.path / "finished.json").read_text())
        except (FileNotFoundError, ValueError):
            return None


def settings(config: dict[str, Any]) -> dict[str, Any]:
    """A config's settings by dotted key that make it this run: without those of `FREE`."""
    return {key: value for key, value in flatten(config) if FREE.isdisjoint(accumulate(key.split("."), "{}.{}".format))}


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


def _below(key: str, ancestor: str) -> bool:
    return key == ancestor or key.startswith(ancestor + ".")
