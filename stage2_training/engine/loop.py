"""An epoch loop that counts optimizer steps and can resume in the middle of an epoch."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from mmengine.dist import get_dist_info
from mmengine.registry import LOOPS
from mmengine.runner import EpochBasedTrainLoop, Runner
from torch import Tensor, nn

from stage1_proposals.common.errors import UserError
from stage2_training.engine.divergence import check_finite
from stage2_training.engine.optimizer import AccumulatingOptimWrapper
from stage2_training.engine.steps import StepLoader, derive_seed, passes


@LOOPS.register_module()
class ResumableEpochLoop(EpochBasedTrainLoop):
    """MMEngine's epoch loop for steps of any number of batches, resumable from a checkpoint taken after any step.

    What MMEngine calls an iteration is one optimizer step here: schedules, intervals, logs and checkpoints count steps,
    however many processes and passes a step takes. So a run may be resumed with other numbers of them.

    MMEngine's own loop would repeat an interrupted epoch from its first batch, and so train for too many iterations.
    This one derives the epoch and the position in it from the number of steps done, and lets the sampler skip the
    samples already seen (`ResumableSampler`). Learning-rate schedules must count iterations
    (`convert_to_iter_based=True`), because a checkpoint may fall between the last iteration of an epoch and the
    epoch's end. Random transforms of a sample depend on the seed, the epoch and the sample's position in it; random
    draws in the model depend on the seed, the step and the process. So an interruption changes neither.

    `_iter`, `_epoch`, `_max_epochs` and `_max_iters` are set here because MMEngine (onedl-mmengine 0.10.12) gives
    subclasses of its loops no public setter for them.

    Args:
        runner, max_epochs, kwargs: as in MMEngine.
        dataloader: config of the data loader; `batch_size` counts images per process and pass.
        total_batch: images per step; by default one pass of each process.

    Raises:
        UserError: `total_batch` is not a whole number of passes of every process.
    """

    dataloader: Any  # MMEngine's data loader, wrapped in a StepLoader in __init__

    def __init__(
        self,
        runner: Runner,
        dataloader: Mapping[str, Any],
        max_epochs: int,
        total_batch: int | None = None,
        **kwargs: Any,
    ) -> None:
        seeded = {
            **dataloader,
            "dataset": {"type": "SeededDataset", "dataset": dataloader["dataset"]},
            "batch_sampler": {"type": "SeededBatchSampler", "seed": runner.seed},
        }
        super().__init__(runner, seeded, max_epochs, **kwargs)
        self.rank, processes = get_dist_info()
        self.passes = passes(total_batch, dataloader["batch_size"], processes) if total_batch else 1
        self.dataloader = StepLoader(self.dataloader, self.passes)
        self._max_iters = self._max_epochs * len(self.dataloader)

    def run(self) -> nn.Module:
        """Train to the end and evaluate after each epoch, also where the run was interrupted before an evaluation.

        Raises:
            UserError: a step takes several passes, and the optimizer wrapper cannot add up gradients; a loss is NaN or
                infinite.
        """
        if self.passes > 1 and not isinstance(self.runner.optim_wrapper, AccumulatingOptimWrapper):
            raise UserError(
                f"optim_wrapper.type {type(self.runner.optim_wrapper).__name__}: a step takes {self.passes} passes; "
                f"use {AccumulatingOptimWrapper.__name__}, or more processes"
            )
        steps = len(self.dataloader)
        self._epoch = self._iter // steps
        self.runner.call_hook("before_train")
        if self._epoch > 0 and self._iter % steps == 0:
            self.evaluate()
        while self._epoch < self._max_epochs and not self.stop_training:
            self.run_epoch()
            self.evaluate()
        self.runner.call_hook("after_train")
        return self.runner.model

    def run_epoch(self) -> None:
        """Train on the rest of the epoch."""
        done = self._iter - self._epoch * len(self.dataloader)
        self.dataloader.start_at(done)
        self.runner.call_hook("before_train_epoch")
        self.runner.model.train()
        for step, batches in enumerate(self.dataloader, start=done):
            self.run_iter(step, batches)
        if self._iter != (self._epoch + 1) * len(self.dataloader):
            raise RuntimeError(
                f"epoch {self._epoch + 1} ended after {self._iter} steps, of {len(self.dataloader)} each"
            )
        self.runner.call_hook("after_train_epoch")
        self._epoch += 1

    def run_iter(self, idx: int, data_batch: Sequence[Mapping[str, Any]]) -> None:
        """Take one optimizer step.

        Args:
            idx: the step's index in its epoch.
            data_batch: the step's batches in this process.
        """
        self.runner.call_hook("before_train_iter", batch_idx=idx, data_batch=data_batch)
        losses = self._step(data_batch)
        losses["loss"] = check_finite(self.runner, data_batch, losses)
        self.runner.call_hook("after_train_iter", batch_idx=idx, data_batch=data_batch, outputs=losses)
        self._iter += 1

    def _step(self, batches: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        """Forward and backward for each batch, one update; the losses are means over the batches' images."""
        wrapper = self.runner.optim_wrapper
        images = [len(batch["inputs"]) for batch in batches]
        means: dict[str, Tensor] = {}
        for number, batch in enumerate(batches):
            torch.manual_seed(derive_seed(self.runner.seed, self._iter, number, self.rank))
            share = images[number] / sum(images)
            if isinstance(wrapper, AccumulatingOptimWrapper):
                wrapper.begin_batch(share, last=number == len(batches) - 1)
            for name, value in self.runner.model.train_step(batch, optim_wrapper=wrapper).items():
                means[name] = means.get(name, 0) + share * value.detach()
        return means

    def evaluate(self) -> None:
        """Run the validation loop if there is one and it is due."""
        self._decide_current_val_interval()
        due = self._epoch % self.val_interval == 0 or self._epoch == self._max_epochs
        if self.runner.val_loop is not None and self._epoch >= self.val_begin and due:
            self.runner.val_loop.run()
