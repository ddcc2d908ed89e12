"""Checkpoints that hold tensors and plain values only, and are read without running any code in them."""

import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.dist import is_main_process
from mmengine.fileio import LocalBackend, register_backend
from mmengine.hooks import CheckpointHook, Hook
from mmengine.registry import HOOKS
from mmengine.runner import CheckpointLoader, Runner

from stage1_proposals.common.errors import UserError
from stage1_proposals.common.files import atomic_write


def read_checkpoint(path: str | Path, map_location: Any = "cpu") -> dict[str, Any]:
    """Read a PyTorch checkpoint, unpickling nothing but tensors, numbers, strings and containers.

    Raises:
        UserError: there is no such file, it is damaged, or it holds other objects.
    """
    try:
        checkpoint = torch.load(path, map_location=map_location, weights_only=True)
    except FileNotFoundError as error:
        hint = "; nothing is downloaded here: get the file and give its path" if "://" in str(path) else ""
        raise UserError(f"{path}: no such checkpoint{hint}") from error
    except pickle.UnpicklingError as error:
        found = re.search(r"GLOBAL (\S+)", str(error))
        what = f"holds {found[1]}" if found else "is not a PyTorch checkpoint"
        raise UserError(f"{path}: {what}; only tensors and plain values are read, never code") from error
    except Exception as error:  # the unpickler raises nearly anything on damaged files
        raise UserError(f"{path}: damaged or not a PyTorch checkpoint ({error})") from error
    if not isinstance(checkpoint, dict):
        raise UserError(f"{path}: holds {type(checkpoint).__name__}, not a checkpoint")
    return checkpoint


def read_weights(path: str | Path) -> dict[str, torch.Tensor]:
    """The state dict in a checkpoint, bare or under `state_dict`.

    Raises:
        UserError: as `read_checkpoint`, or it holds no tensors.
    """
    return weights_in(read_checkpoint(path), path)


def weights_in(checkpoint: dict[str, Any], path: str | Path) -> dict[str, torch.Tensor]:
    """As `read_weights`, of a checkpoint that has been read."""
    state = checkpoint.get("state_dict", checkpoint)
    named = state.items() if isinstance(state, dict) else ()
    weights = {name: value for name, value in named if isinstance(name, str) and isinstance(value, torch.Tensor)}
    if not weights:
        raise UserError(f"{path}: holds no weights")
    return weights


def read_for_mmengine(path: str, map_location: Any = "cpu") -> dict[str, Any]:
    """As `read_checkpoint`, without the config in the file: MMEngine would run that as Python when it resumes."""
    checkpoint = read_checkpoint(path, map_location)
    if isinstance(checkpoint.get("meta"), dict):
        checkpoint["meta"].pop("config", None)
    return checkpoint


# MMEngine's own loaders, of files and of what it downloads (`torchvision://`, `https://`, ...), unpickle whatever code
# a file brings along. Every `load_from`, `init_cfg` and resumed checkpoint passes here.
CheckpointLoader.register_scheme(prefixes=list(CheckpointLoader._schemes), loader=read_for_mmengine, force=True)


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
