"""SOLOv2's head for weak mask losses: it knows which instance each grid cell is for, and what colours say of a mask."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from mmdet.models.dense_heads import SOLOV2Head
from mmdet.registry import MODELS
from mmengine.structures import InstanceData
from torch import Tensor


@MODELS.register_module()
class WeakSOLOV2Head(SOLOV2Head):
    """SOLOv2's head whose mask loss gets the image's colours, and which reports the instances of its grid cells.

    MMDetection's keeps to itself which instance a cell is for. Its targets are made by a protected method, the only
    place where both are known. `gt_instances` have `similar_neighbors`, bool (L, 8, h, w), the same for all instances
    of an image (`similar_neighbors`).

    Attributes:
        observer: called for each image with the instance of each cell, int64 (cells of all levels,), -1 for none; of
            several instances, the last in the image's order. None by default.
    """

    observer: Callable[[Tensor], None] | None = None

    def _get_targets_single(self, gt_instances: InstanceData, *args: Any, **kwargs: Any) -> tuple[list, ...]:
        """As MMDetection's, with colours as further channels of the mask targets, (P, 1 + 8, h, w)."""
        labels = gt_instances.labels
        numbers = -1 - torch.arange(len(labels), device=labels.device)  # in place of classes, which are not negative
        numbered = InstanceData(bboxes=gt_instances.bboxes, masks=gt_instances.masks, labels=numbers)
        masks, found, positive, indexes = super()._get_targets_single(numbered, *args, **kwargs)
        instances = [torch.where(level < 0, -1 - level, -1) for level in found]
        if self.observer is not None:
            self.observer(torch.cat([level.flatten() for level in instances]))
        similar = gt_instances.similar_neighbors[:1]
        targets = [torch.cat([level[:, None], similar.expand(len(level), -1, -1, -1)], dim=1) for level in masks]
        classes = F.pad(labels, (0, 1), value=self.num_classes)  # -1 picks the last, the background
        return targets, [classes[level] for level in instances], positive, indexes
