"""Which query of an image has found which of its instances, in whatever model; a K-Net kernel is a query, too."""

from dataclasses import dataclass

import torch
from mmdet.utils import reduce_mean
from mmengine.dist import get_world_size
from torch import Tensor


@dataclass(frozen=True)
class Assignment:
    """The M matched pairs of a batch: kernel `kernel[m]` of image `image[m]` has found its instance `instance[m]`.

    `x[image, kernel]` picks the matched rows of a (B, N, ...) tensor, `y[image, instance]` those of a (B, L, ...).

    Attributes:
        image, kernel, instance: int64 (M,).
    """

    image: Tensor
    kernel: Tensor
    instance: Tensor

    def __len__(self) -> int:
        return len(self.image)


def mean_pairs(assignment: Assignment) -> Tensor:
    """float32 scalar: matched pairs of the batch, see `mean_count`."""
    # `torch.tensor` of a number would wait for the device.
    return mean_count(torch.full((), len(assignment), device=assignment.image.device))


def mean_count(count: Tensor) -> Tensor:
    """float32 scalar: a count in this process's part of the batch, averaged over processes; in all at least 1.

    DDP averages gradients over processes, so a sum divided by this is divided by the whole batch's count.
    """
    return reduce_mean(count.float()).clamp(min=1 / get_world_size())
