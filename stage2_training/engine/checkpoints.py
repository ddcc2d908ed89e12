"""MMEngine's checkpoints: read without running code in them, written atomically and with plain values only."""

from pathlib import Path
from typing import Any

import numpy as np
from mmengine.fileio import LocalBackend, register_backend
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import CheckpointLoader, Runner

from stage1_proposals.common.checkpoints import read_checkpoint, state_dict_in
from stage1_proposals.common.files import atomic_write
from stage2_training.engine.distributed import is_rank_zero

# Every prefix of a path for which MMEngine 0.10 has a loader, as regular expressions; the empty one is for files.
PREFIXES = (
    *("", "http://", "https://", "modelzoo://", "torchvision://", "open-mmlab://", "openmmlab://", "mmcls://"),
    *("pavi://", r"(\S+\:)?s3://", r"(\S+\:)?petrel://"),
)


def use_safe_checkpoint_loader() -> None:
    """Have MMEngine read every checkpoint (`load_from`, `init_cfg`, resuming) by `read_for_mmengine`.

    MMEngine's own loaders of files, and of what it downloads, unpickle and so run any code that a file contains.
    """
    CheckpointLoader.register_scheme(prefixes=PREFIXES, loader=read_for_mmengine, force=True)


def read_for_mmengine(path: str, map_location: Any = "cpu") -> dict[str, Any]:
    """Read a checkpoint with its weights under `state_dict`, and without its config.

    MMEngine finds weights in no other place: it would silently leave a model as it was initialised. A config it would
    run as Python when it resumes.

    Raises:
        UserError: as `read_checkpoint`.
    """
    checkpoint = read_checkpoint(path, map_location)
    if isinstance(checkpoint.get("meta"), dict):
        checkpoint["meta"].pop("config", None)
    state_dict = state_dict_in(checkpoint)
    return checkpoint if state_dict is checkpoint else {**checkpoint, "state_dict": state_dict}


@HOOKS.register_module()
class PlainCheckpointHook(Hook):
    """Keeps pickled objects out of checkpoints: drops the history of logged values, turns NumPy scalars into Python's.

    The history only smooths the printed losses; the JSON log has every value.
    """

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        hub = checkpoint["message_hub"]
        info = {
            name: value.item() if isinstance(value, np.generic) else value
            for name, value in hub["runtime_info"].items()
        }
        checkpoint["message_hub"] = {
            "log_scalars": {},
            "runtime_info": info,
            "resumed_keys": {name: resumed for name, resumed in hub["resumed_keys"].items() if name in info},
        }


BACKEND = "atomic_write"


class AtomicFileBackend(LocalBackend):
    """MMEngine's local files, but a file appears under its name only when it is complete and on disk."""

    def put(self, obj: bytes, filepath: str | Path) -> None:
        with atomic_write(Path(filepath)) as scratch:
            super().put(obj, scratch)


register_backend(BACKEND, AtomicFileBackend)


def step_checkpoints(directory: Path) -> list[tuple[int, Path]]:
    """The checkpoints `iter_N.pth` of a directory as (N, path), the oldest first; other names are ignored."""
    named = [(path.stem.removeprefix("iter_"), path) for path in directory.glob("iter_*.pth")]
    return sorted((int(number), path) for number, path in named if number.isdecimal())


@HOOKS.register_module()
class AtomicCheckpointHook(Hook):
    """Saves checkpoints so that an interruption at any moment leaves the latest complete one in place.

    A checkpoint `iter_N.pth` is written every `interval` steps and after the last step, also of a run that ends early.
    Then `last_checkpoint` is made
    to name it (MMEngine and MMDetection's tools resume from there), and only then are older ones deleted. MMEngine's
    own hook deletes first and writes in place.

    Args:
        interval: in steps.
        max_keep_ckpts: how many of the newest checkpoints are kept; -1 keeps all.
    """

    priority = "VERY_LOW"

    def __init__(self, interval: int, max_keep_ckpts: int = -1) -> None:
        self.interval = interval
        self.max_keep_ckpts = max_keep_ckpts

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: dict[str, Any] | None = None
    ) -> None:
        if self.every_n_train_iters(runner, self.interval) or self.is_last_train_iter(runner):
            self._save(runner, runner.iter + 1)

    def after_train(self, runner: Runner) -> None:
        if not (Path(runner.work_dir) / f"iter_{runner.iter}.pth").is_file():
            self._save(runner, runner.iter)

    def _save(self, runner: Runner, step: int) -> None:
        directory = Path(runner.work_dir)
        checkpoint = directory / f"iter_{step}.pth"
        runner.logger.info(f"Saving checkpoint at {step} iterations")
        meta = {"iter": step, "epoch": runner.epoch}  # MMEngine's own count depends on when it is asked
        runner.save_checkpoint(
            str(directory), checkpoint.name, meta=meta, by_epoch=False, backend_args={"backend": BACKEND}
        )
        if is_rank_zero():
            with atomic_write(directory / "last_checkpoint") as scratch:
                scratch.write_text(str(checkpoint))
            if self.max_keep_ckpts > 0:
                saved = [path for number, path in step_checkpoints(directory) if number <= step]
                for old in saved[: -self.max_keep_ckpts]:
                    old.unlink(missing_ok=True)
