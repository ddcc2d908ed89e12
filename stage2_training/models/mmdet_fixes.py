"""Parts of MMDetection with a fault of theirs mended; the configs of its models name them."""

from collections.abc import Sequence
from typing import Any

import torch
from mmdet.models.dense_heads import RPNHead
from mmdet.models.losses import FocalLoss
from mmdet.models.roi_heads.mask_heads import DynamicMaskHead
from mmdet.models.roi_heads.roi_extractors import SingleRoIExtractor
from mmdet.registry import MODELS
from mmengine.structures import InstanceData
from torch import Tensor


@MODELS.register_module()
class Float32RoIExtractor(SingleRoIExtractor):
    """In float32 under autocast, too.

    MMDetection's casts boxes to the features' type, which in bfloat16 moves them by up to 2 px beyond 512, and has no
    RoIAlign for it.
    """

    def forward(self, feats: Sequence[Tensor], rois: Tensor, roi_scale_factor: float | None = None) -> Tensor:
        """Features (B, C, h, w) of each level and boxes (R, 5) in pixels -> float32 (R, C, *output_size)."""
        return super().forward([feat.float() for feat in feats], rois.float(), roi_scale_factor)


@MODELS.register_module()
class Float32RPNHead(RPNHead):
    """Proposals in float32 under autocast, too: MMCV's NMS knows no bfloat16."""

    def predict_by_feat(
        self, cls_scores: Sequence[Tensor], bbox_preds: Sequence[Tensor], *args: Any, **kwargs: Any
    ) -> list[InstanceData]:
        """As MMDetection's."""
        cls_scores, bbox_preds = ([each.float() for each in level] for level in (cls_scores, bbox_preds))
        return super().predict_by_feat(cls_scores, bbox_preds, *args, **kwargs)


@MODELS.register_module()
class Float32FocalLoss(FocalLoss):
    """In float32 under autocast, too, and never per less than one object.

    MMCV's GPU kernel knows no bfloat16, and QueryInst divides the loss of a batch without any object by 1e-7.
    """

    def forward(self, pred: Tensor, target: Tensor, *args: Any, avg_factor: Any = None, **kwargs: Any) -> Tensor:
        """As MMDetection's."""
        if avg_factor is not None:
            avg_factor = torch.as_tensor(avg_factor).clamp(min=1)
        return super().forward(pred.float(), target, *args, avg_factor=avg_factor, **kwargs)


@MODELS.register_module()
class BoundedDynamicMaskHead(DynamicMaskHead):
    """Boxes that QueryInst puts wholly outside the image get empty masks; MMDetection's fails on them on CPU."""

    def _predict_by_feat_single(self, mask_preds: Tensor, bboxes: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """As MMDetection's, with such boxes moved in place until they touch the image's border."""
        height, width = kwargs["img_meta"]["ori_shape"][:2]
        size = bboxes.new_tensor([width, height]) * bboxes.new_tensor(kwargs["img_meta"]["scale_factor"])
        shift = (-bboxes[:, 2:]).clamp(min=0) - (bboxes[:, :2] - size).clamp(min=0)
        bboxes += shift.repeat(1, 2)
        return super()._predict_by_feat_single(mask_preds, bboxes, *args, **kwargs)
