"""An epoch loop that goes on in the middle of an epoch."""

from mmengine.registry import LOOPS
from mmengine.runner import EpochBasedTrainLoop
from torch import nn


@LOOPS.register_module()
class ResumableEpochLoop(EpochBasedTrainLoop):
    """MMEngine's epoch loop, for checkpoints taken at any iteration.

    MMEngine's own loop would repeat an interrupted epoch from its first batch and so train for more iterations
    than asked. This one reads the epoch and the place in it off the number of iterations done, and leaves the
    samples already seen to the sampler (`ResumableSampler`). Learning-rate schedules must count iterations
    (`convert_to_iter_based=True`), because a checkpoint may fall between the last iteration of an epoch and the
    epoch's end.
    """

    def run(self) -> nn.Module:
        """Train to the end; evaluate after each epoch, first of all one whose evaluation the interruption took."""
        batches = len(self.dataloader)
        self._epoch = self._iter // batches
        self.runner.call_hook("before_train")
        if self._epoch > 0 and self._iter % batches == 0:
            self.evaluate()
        while self._epoch < self._max_epochs and not self.stop_training:
            self.run_epoch()
            self.evaluate()
        self.runner.call_hook("after_train")
        return self.runner.model

    def run_epoch(self) -> None:
        """Train on what is left of the epoch."""
        done = self._iter - self._epoch * len(self.dataloader)
        self.dataloader.sampler.start_at(done * self.dataloader.batch_size)
        self.runner.call_hook("before_train_epoch")
        self.runner.model.train()
        for batch_index, batch in enumerate(self.dataloader, start=done):
            self.run_iter(batch_index, batch)
        self.runner.call_hook("after_train_epoch")
        self._epoch += 1

    def evaluate(self) -> None:
        """Run the validation loop when there is one and its turn has come."""
        self._decide_current_val_interval()
        due = self._epoch % self.val_interval == 0 or self._epoch == self._max_epochs
        if self.runner.val_loop is not None and self._epoch >= self.val_begin and due:
            self.runner.val_loop.run()
