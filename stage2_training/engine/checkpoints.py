"""MMEngine's checkpoints: read without running code in them, written atomically and with plain values only."""

from pathlib import Path
from typing import Any

import numpy as np
from mmengine.dist import is_main_process
from mmengine.fileio import LocalBackend, register_backend
from mmengine.hooks import CheckpointHook, Hook
from mmengine.registry import HOOKS
from mmengine.runner import CheckpointLoader, Runner

from stage1_proposals.common.checkpoints import read_checkpoint
from stage1_proposals.common.files import atomic_write

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
    """Read a checkpoint without the config in it, which MMEngine would run as Python when it resumes.

    Raises:
        UserError: as `read_checkpoint`.
    """
    checkpoint = read_checkpoint(path, map_location)
    if isinstance(checkpoint.get("meta"), dict):
        checkpoint["meta"].pop("config", None)
    return checkpoint


@HOOKS.register_module()
class PlainCheckpointHook(Hook):
    """Keep checkpoints plain: without the logged values' history, and with Python's numbers for NumPy's.

    The history consists of pickled objects. It only smooths the printed losses; the JSON log has every value.
    """

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        hub = checkpoint["message_hub"]
        info = {name: _plain(value) for name, value in hub["runtime_info"].items()}
        checkpoint["message_hub"] = {
            "log_scalars": {},
            "runtime_info": info,
            "resumed_keys": {name: kept for name, kept in hub["resumed_keys"].items() if name in info},
        }


def _plain(value: Any) -> Any:
    """A NumPy number as Python's."""
    return value.item() if isinstance(value, np.generic) else value


BACKEND = "atomic_write"


class AtomicFileBackend(LocalBackend):
    """MMEngine's local files, but a file appears under its name only when it is whole and on disk."""

    def put(self, obj: bytes, filepath: str | Path) -> None:
        with atomic_write(Path(filepath)) as scratch:
            super().put(obj, scratch)


register_backend(BACKEND, AtomicFileBackend)


@HOOKS.register_module()
class AtomicCheckpointHook(CheckpointHook):
    """MMEngine's checkpoint hook that at no moment leaves less than it had: write, name as the last, then delete.

    MMEngine deletes the oldest checkpoint first and writes in place.

    Args:
        kwargs: those of `CheckpointHook`.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**{"backend_args": {"backend": BACKEND}, **kwargs})

    def _save_checkpoint_with_step(self, runner: Runner, step: int, meta: dict[str, Any]) -> None:
        oldest = None
        if self.max_keep_ckpts > 0 and step not in self.keep_ckpt_ids:
            if len(self.keep_ckpt_ids) == self.max_keep_ckpts:
                oldest = self.keep_ckpt_ids[0]
            self.keep_ckpt_ids.append(step)  # a full deque lets the oldest go
            runner.message_hub.update_info("keep_ckpt_ids", list(self.keep_ckpt_ids))
        directory, name = Path(self.out_dir), self.filename_tmpl.format(step)
        self.last_ckpt = str(directory / name)
        runner.message_hub.update_info("last_ckpt", self.last_ckpt)
        runner.save_checkpoint(
            self.out_dir,
            name,
            save_optimizer=self.save_optimizer,
            save_param_scheduler=self.save_param_scheduler,
            meta=meta,
            by_epoch=self.by_epoch,
            backend_args=self.backend_args,
            **self.args,
        )
        if is_main_process():
            with atomic_write(Path(runner.work_dir) / "last_checkpoint") as scratch:
                scratch.write_text(self.last_ckpt)
            if oldest is not None:
                (directory / self.filename_tmpl.format(oldest)).unlink(missing_ok=True)
