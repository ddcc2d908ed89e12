"""MMEngine's runner as this project uses it: it prints little and is exact about checkpoints."""

import io
from contextlib import redirect_stdout
from typing import Any

from mmengine.device import get_device
from mmengine.hooks import Hook
from mmengine.logging import MMLogger
from mmengine.model import is_model_wrapper
from mmengine.optim import OptimWrapper, OptimWrapperDict
from mmengine.runner import Runner
from torch.utils.data import DataLoader

from stage1_proposals.common.checkpoints import match_tensors, tensors_in
from stage2_training.engine.checkpoints import use_safe_checkpoint_loader
from stage2_training.engine.distributed import bind_workers
from stage2_training.engine.logging import errors_only, silence_console
from stage2_training.engine.shared_memory import fit_shared_memory


class QuietRunner(Runner):
    """MMEngine's runner that prints little and leaves writing configs to `WorkDir`."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        use_safe_checkpoint_loader()
        super().__init__(*args, **kwargs)

    def dump_config(self) -> None:
        """Do nothing: the work directory has its config already."""

    def build_logger(self, *args: Any, **kwargs: Any) -> MMLogger:
        logger = super().build_logger(*args, **kwargs)
        silence_console(logger)
        return logger

    def build_optim_wrapper(self, *args: Any, **kwargs: Any) -> OptimWrapper | OptimWrapperDict:
        with errors_only(self.logger):  # MMEngine warns of each frozen parameter
            return super().build_optim_wrapper(*args, **kwargs)

    def save_checkpoint(self, *args: Any, **kwargs: Any) -> None:
        with errors_only(self.logger):  # MMEngine warns that a class that it uses itself is deprecated
            super().save_checkpoint(*args, **kwargs)

    @staticmethod
    def build_dataloader(dataloader: Any, *args: Any, **kwargs: Any) -> DataLoader:
        if get_device() == "cuda" and not isinstance(dataloader, DataLoader):
            dataloader = {"pin_memory": True, **dataloader}  # memory that the GPU copies from by itself
        with redirect_stdout(io.StringIO()):  # pycocotools prints that it loads annotations
            return fit_shared_memory(bind_workers(Runner.build_dataloader(dataloader, *args, **kwargs)))

    def load_checkpoint(self, filename: str, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Load a checkpoint of the whole model; MMEngine would skip tensors of other shapes.

        Raises:
            UserError: it is not a checkpoint of this model.
        """
        with redirect_stdout(io.StringIO()):  # MMEngine prints the path without its logger
            checkpoint = super().load_checkpoint(filename, *args, **kwargs)
        model = self.model.module if is_model_wrapper(self.model) else self.model
        match_tensors(tensors_in(checkpoint, filename), model.state_dict()).require_all(filename)
        return checkpoint

    def scale_lr(self, optim_wrapper: OptimWrapper, auto_scale_lr: dict[str, Any] | None = None) -> None:
        """Scale the learning rate by the images of an optimizer step; MMEngine counts those of a single pass."""
        if auto_scale_lr:
            base = auto_scale_lr["base_batch_size"] / self.train_loop.passes
            auto_scale_lr = {**auto_scale_lr, "base_batch_size": base}
        super().scale_lr(optim_wrapper, auto_scale_lr)


class BuildProgress(Hook):
    """Knows whether a runner has built all its parts; it builds most of them only in `train` and `test`."""

    finished = False

    def before_run(self, runner: Runner) -> None:
        self.finished = True
