"""MMEngine's runner as this project uses it: quiet, exact about checkpoints, going on by itself."""

import io
from contextlib import redirect_stdout
from typing import Any

from mmengine.logging import MMLogger
from mmengine.model import is_model_wrapper
from mmengine.optim import OptimWrapper
from mmengine.runner import Runner
from torch.utils.data import DataLoader

from stage1_proposals.common.checkpoints import match_tensors, tensors_in
from stage2_training.engine import bind_workers, quieten, use_safe_checkpoint_loader
from stage2_training.runs.work_dir import WorkDir


class QuietRunner(Runner):
    """MMEngine's runner that prints little and leaves writing configs to `WorkDir`.

    Attributes:
        built: whether all its parts are there; MMEngine makes most of them only in `train` and `test`.
    """

    built = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        use_safe_checkpoint_loader()
        super().__init__(*args, **kwargs)

    def load_or_resume(self) -> None:
        self.built = True
        super().load_or_resume()

    def dump_config(self) -> None:
        """The work directory has its config already."""

    def build_logger(self, *args: Any, **kwargs: Any) -> MMLogger:
        logger = super().build_logger(*args, **kwargs)
        quieten(logger)
        return logger

    @staticmethod
    def build_dataloader(*args: Any, **kwargs: Any) -> DataLoader:
        with redirect_stdout(io.StringIO()):  # pycocotools prints what it loads
            return bind_workers(Runner.build_dataloader(*args, **kwargs))

    def load_checkpoint(self, filename: str, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Load a checkpoint of the whole model; MMEngine would pass over tensors of other shapes.

        Raises:
            UserError: it is not of this model.
        """
        with redirect_stdout(io.StringIO()):  # MMEngine prints the path, past its logger
            checkpoint = super().load_checkpoint(filename, *args, **kwargs)
        model = self.model.module if is_model_wrapper(self.model) else self.model
        match_tensors(tensors_in(checkpoint, filename), model.state_dict()).require_all(filename)
        return checkpoint


class TrainingRunner(QuietRunner):
    """A runner that goes on by itself in a `WorkDir`."""

    def load_or_resume(self) -> None:
        """Resume the latest checkpoint; without one, start from the config's `load_from`."""
        self.built = True
        checkpoint = WorkDir(self.work_dir).latest_checkpoint()
        if checkpoint is None:
            super().load_or_resume()
        else:
            print(f"Going on from {checkpoint}", flush=True)
            self._resume = True  # MMEngine's EMA hook asks whether the averages go on, too
            self.resume(str(checkpoint))

    def scale_lr(self, optim_wrapper: OptimWrapper, auto_scale_lr: dict[str, Any] | None = None) -> None:
        """Scale by the images of an optimizer step; MMEngine knows of those of one pass."""
        if auto_scale_lr:
            base = auto_scale_lr["base_batch_size"] / self.train_loop.passes
            auto_scale_lr = {**auto_scale_lr, "base_batch_size": base}
        super().scale_lr(optim_wrapper, auto_scale_lr)
