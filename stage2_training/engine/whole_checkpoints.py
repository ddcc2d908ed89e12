"""Checkpoints that are whole or not there, whenever a run is killed."""

from pathlib import Path
from typing import Any

from mmengine.dist import is_main_process
from mmengine.fileio import LocalBackend, register_backend
from mmengine.hooks import CheckpointHook
from mmengine.registry import HOOKS
from mmengine.runner import Runner

from stage1_proposals.shards.writer import whole_file

BACKEND = "whole_file"


class WholeFileBackend(LocalBackend):
    """MMEngine's local files, but a file appears under its name only when it is whole and on disk."""

    def put(self, obj: bytes, filepath: str | Path) -> None:
        with whole_file(Path(filepath)) as scratch:
            super().put(obj, scratch)


register_backend(BACKEND, WholeFileBackend)


@HOOKS.register_module()
class WholeCheckpointHook(CheckpointHook):
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
            with whole_file(Path(runner.work_dir) / "last_checkpoint") as scratch:
                scratch.write_text(self.last_ckpt)
            if oldest is not None:
                (directory / self.filename_tmpl.format(oldest)).unlink(missing_ok=True)
