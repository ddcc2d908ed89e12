"""Fixes of MMDetection's parts, which the model configs name instead, and a list of all reliance on library internals.

Each class says which fault it fixes, and in which version, so that it can be dropped when a newer version no longer has
the fault.

Everything in stage 2 that relies on more than documented, public interfaces is listed here. The versions are
onedl-mmdetection 3.5.1, onedl-mmcv 2.3.6, onedl-mmengine 0.10.12 and torch 2.14.1.

`models/mmdet_fixes.py`, `BoundedDynamicMaskHead._predict_by_feat_single` (mmdetection)
    No public method lies between the boxes and the pasting of masks.
`saliency_prompt/grid_cells.py`, `WeakSOLOV2Head._get_targets_single` (mmdetection)
    SOLOv2's head decides only there which instance a grid cell is for.
`data/dataset.py`, `_fully_initialized` (mmengine)
    `BaseDataset` has no public way to say that a dataset has nothing to load.
`data/rle_masks.py`, `RunLengthMasks.__init__` does not call that of `BitmapMasks` (mmdetection)
    `BitmapMasks` stores the bitmaps that run lengths avoid, and transforms check for that class.
`engine/loop.py`, `_iter`, `_epoch`, `_max_epochs`, `_max_iters`, `_decide_current_val_interval` (mmengine)
    Loops have no public setters for their progress and length, and no public name for this method.
`engine/checkpoints.py`, the list of URL schemes (mmengine)
    `CheckpointLoader.register_scheme` is public, but the schemes that must be replaced cannot be listed publicly.
`engine/checkpoints.py`, `register_backend` when the module is imported (mmengine)
    A process-wide registry, like those of modules; a file backend is found by name only.
`engine/distributed.py`, `torch.distributed.rendezvous.rendezvous` (torch)
    It yields the store in which processes agree on who reports an error; `init_process_group` keeps its store private.
`runs/runner.py`, standard output is redirected while data sets and checkpoints are read (pycocotools 2, mmengine)
    Both print without a logger.
`runs/train.py`, a filter for the warning that `broadcast_buffers` is deprecated (torch)
    MMEngine passes it on, and its successor does not exist in older versions of torch.
`runs/train.py`, a filter for the warning that `torch.meshgrid` will change (torch)
    MMDetection's Deformable DETR calls it as before the change.
`runs/train.py`, `plain_user_errors` cuts an error's message out of a traceback (torch)
    Text is all that `torch.utils.data` hands over from a worker process.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from mmdet.models.dense_heads import DETRHead, RPNHead
from mmdet.models.losses import FocalLoss
from mmdet.models.roi_heads.mask_heads import DynamicMaskHead
from mmdet.models.roi_heads.roi_extractors import SingleRoIExtractor
from mmdet.models.task_modules.assigners import AssignResult, HungarianAssigner
from mmdet.registry import MODELS, TASK_UTILS
from mmengine.structures import InstanceData
from torch import Tensor


@TASK_UTILS.register_module()
class NaNSafeHungarianAssigner(HungarianAssigner):
    """Hungarian matching that handles NaN and infinite costs, and can report its results.

    MMDetection's (onedl-mmdetection 3.5.1) raises an error in SciPy when the network has diverged. In distributed
    training that error would leave the other processes waiting, and it names no image. Here a NaN counts as cost 0
    and an infinite cost as the largest finite one: the loss, which is made of the same predictions, is not finite
    either, and `engine/divergence.py` stops the run there, in every process. Finite costs give the same matching as
    MMDetection's.

    MMDetection's heads keep their assignments to themselves. Kernel supervision (Eq. 9) needs them.

    Args:
        match_costs: as in MMDetection.

    Attributes:
        observer: called with the result of every `assign`; None by default.
    """

    match_costs: Any  # MMDetection: a list of match costs

    def __init__(self, match_costs: Sequence[Mapping[str, Any]] | Mapping[str, Any]) -> None:
        super().__init__(match_costs)
        self.match_costs = [_FiniteSum(self.match_costs)]
        self.observer: Callable[[AssignResult], None] | None = None

    def assign(self, *args: Any, **kwargs: Any) -> AssignResult:
        """As MMDetection's."""
        result = super().assign(*args, **kwargs)
        if self.observer is not None:
            self.observer(result)
        return result


class _FiniteSum:
    """The sum of matching costs (N, L), as `HungarianAssigner` adds them up, without NaN and infinities."""

    match_costs: Any  # MMDetection: a list of match costs

    def __init__(self, match_costs: Sequence[Callable[..., Tensor]]) -> None:
        self.match_costs = match_costs

    def __call__(self, **predictions_and_truth: Any) -> Tensor:
        costs = [match_cost(**predictions_and_truth) for match_cost in self.match_costs]
        return torch.stack(costs).sum(dim=0).nan_to_num()


@MODELS.register_module()
class Float32RoIExtractor(SingleRoIExtractor):
    """RoIAlign in float32 under autocast, too.

    MMDetection's (onedl-mmdetection 3.5.1) casts boxes to the features' type, which in bfloat16 moves them by up to
    2 px beyond 512; and MMCV (onedl-mmcv 2.3.6) has no RoIAlign in bfloat16.
    """

    def forward(self, feats: Sequence[Tensor], rois: Tensor, roi_scale_factor: float | None = None) -> Tensor:
        """Features (B, C, h, w) of each level and boxes (R, 5) in pixels -> float32 (R, C, *output_size)."""
        return super().forward([feat.float() for feat in feats], rois.float(), roi_scale_factor)


@MODELS.register_module()
class Float32RPNHead(RPNHead):
    """RPN that selects proposals in float32 under autocast, too: MMCV's NMS (onedl-mmcv 2.3.6) has no bfloat16."""

    def predict_by_feat(
        self, cls_scores: Sequence[Tensor], bbox_preds: Sequence[Tensor], *args: Any, **kwargs: Any
    ) -> list[InstanceData]:
        """As MMDetection's."""
        cls_scores, bbox_preds = ([level.float() for level in levels] for levels in (cls_scores, bbox_preds))
        return super().predict_by_feat(cls_scores, bbox_preds, *args, **kwargs)


@MODELS.register_module()
class Float32FocalLoss(FocalLoss):
    """Focal loss in float32 under autocast, too, and never divided by less than one object.

    MMCV's GPU kernel (onedl-mmcv 2.3.6) has no bfloat16, and QueryInst (onedl-mmdetection 3.5.1) divides the loss of a
    batch without any object by 1e-7.
    """

    def forward(self, pred: Tensor, target: Tensor, *args: Any, avg_factor: Any = None, **kwargs: Any) -> Tensor:
        """As MMDetection's."""
        if avg_factor is not None:
            avg_factor = torch.as_tensor(avg_factor).clamp(min=1)
        return super().forward(pred.float(), target, *args, avg_factor=avg_factor, **kwargs)


@MODELS.register_module()
class ListWeightsDETRHead(DETRHead):
    """DETR's head with a list of class weights, as the other models have: one per class, then that of "no object".

    MMDetection's (onedl-mmdetection 3.5.1) takes two numbers and writes a tensor into the config that it is built from,
    which then builds no second head, and of which PyTorch warns at the first step.

    Args:
        loss_cls: with `class_weight`, the list.
        kwargs: those of MMDetection's.
    """

    def __init__(self, *, loss_cls: dict[str, Any], **kwargs: Any) -> None:
        super().__init__(loss_cls=loss_cls, **kwargs)
        self.bg_cls_weight = loss_cls["class_weight"][-1]

    def forward(self, hidden_states: Tensor) -> tuple[Tensor, ...]:
        """Queries (layers, B, N, C) -> float32 class scores and boxes, as MMDetection's."""
        with torch.autocast(hidden_states.device.type, enabled=False):
            return super().forward(hidden_states.float())


@MODELS.register_module()
class BoundedDynamicMaskHead(DynamicMaskHead):
    """QueryInst's mask head, giving empty masks to boxes that lie wholly outside the image.

    MMDetection's (onedl-mmdetection 3.5.1) fails on such boxes on a CPU. It has no public place between the boxes and
    the pasting of masks, so a protected method is overridden.
    """

    def _predict_by_feat_single(self, mask_preds: Tensor, bboxes: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """As MMDetection's, with boxes outside the image moved in place until they touch its border."""
        height, width = kwargs["img_meta"]["ori_shape"][:2]
        size = bboxes.new_tensor([width, height]) * bboxes.new_tensor(kwargs["img_meta"]["scale_factor"])
        shift = (-bboxes[:, 2:]).clamp(min=0) - (bboxes[:, :2] - size).clamp(min=0)
        bboxes += shift.repeat(1, 2)
        return super()._predict_by_feat_single(mask_preds, bboxes, *args, **kwargs)
