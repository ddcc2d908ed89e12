"""An optimizer wrapper for steps of several batches, and for mixed precision on any device."""

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
    """MMEngine's optimizer wrapper, accumulating the gradients of a step's batches and synchronising them once.

    Each batch counts by its share of the step's images. With MMEngine's own accumulation, schedules and intervals would
    count batches instead of steps.

    Args:
        amp: autocast forward passes to bfloat16. It has float32's range, so losses need no scaling.
        args, kwargs: those of `OptimWrapper`.
    """

    def __init__(self, *args: Any, amp: bool = False, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.amp = amp
        self.begin_batch(1.0, last=True)

    def begin_batch(self, share: float, *, last: bool) -> None:
        """Announce the next batch: its share of the step's images, and whether it is the step's last."""
        self.share, self.last = share, last

    def should_update(self) -> bool:
        return self.last

    def should_sync(self) -> bool:
        return self.last

    def step(self, **kwargs: Any) -> None:
        """As MMEngine's, but the gradient's norm is always logged, not only when it is clipped.

        `divergence.py` reads it there.
        """
        if not self.clip_grad_kwargs:
            parameters = (parameter for group in self.param_groups for parameter in group["params"])
            gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
            self.message_hub.update_scalar("train/grad_norm", float(torch.nn.utils.get_total_norm(gradients)))
        super().step(**kwargs)

    def scale_loss(self, loss: Tensor) -> Tensor:
        return loss * self.share

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        with super().optim_context(model), torch.autocast(get_device(), torch.bfloat16, enabled=self.amp):
            yield
