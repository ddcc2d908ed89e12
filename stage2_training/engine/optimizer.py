"""MMEngine's optimizer wrapper for steps of several batches, and for mixed precision on any device."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from mmengine.device import get_device
from mmengine.optim import OptimWrapper
from mmengine.registry import OPTIM_WRAPPERS
from torch import Tensor, nn


@OPTIM_WRAPPERS.register_module()
class AccumulatingOptimWrapper(OptimWrapper):
    """Gradients of a step's batches are added up, each by its share of the step's images, and exchanged once.

    MMEngine's own accumulation counts batches instead of steps, and so do all schedules and intervals with it.

    Args:
        amp: forward passes in bfloat16, where autocast does so. It has float32's range, so losses need no scaling.
        args, kwargs: those of `OptimWrapper`.
    """

    def __init__(self, *args: Any, amp: bool = False, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.amp = amp
        self.begin_batch(1.0, last=True)

    def begin_batch(self, share: float, *, last: bool) -> None:
        """Say of the next batch what share of the step's images it has, and whether the step ends with it."""
        self.share, self.last = share, last

    def should_update(self) -> bool:
        return self.last

    def should_sync(self) -> bool:
        return self.last

    def step(self, **kwargs: Any) -> None:
        """As MMEngine's, which tells the gradient's norm only where it is clipped; a run stops where it is NaN."""
        if not self.clip_grad_kwargs:
            gradients = [each.grad for group in self.param_groups for each in group["params"] if each.grad is not None]
            self.message_hub.update_scalar("train/grad_norm", float(torch.nn.utils.get_total_norm(gradients)))
        super().step(**kwargs)

    def scale_loss(self, loss: Tensor) -> Tensor:
        return loss * self.share

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        with super().optim_context(model), torch.autocast(get_device(), torch.bfloat16, enabled=self.amp):
            yield
