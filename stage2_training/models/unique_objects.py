"""QueryInst and the mask transformers with scores that say which of several masks of one object is the best.

One query for one object is what matching teaches a model in many epochs. After few, several queries find the same
object with nearly the same score, and these models have no non-maximum suppression. K-Net has its own
(`knet/postprocess.py`).
"""

from collections.abc import Mapping
from typing import Any

import torch
from mmdet.models.roi_heads import SparseRoIHead
from mmdet.models.seg_heads import MaskFormerFusionHead
from mmdet.registry import MODELS
from mmdet.structures.mask import mask2bbox
from mmengine.structures import InstanceData
from torch import Tensor

from stage1_proposals.common.mask_nms import decay_scores, mask_iou
from stage2_training.models.one_piece import largest_pieces

COMPARED = 192  # rows and columns of an image, evenly spaced, in which masks are compared


def unique_scores(scores: Tensor, labels: Tensor, masks: Tensor, sizes: Tensor) -> Tensor:
    """Scores, decayed by their masks' overlaps with masks of higher score and the same class (matrix NMS).

    Args:
        scores: (B, R), in [0, 1].
        labels: int64 (B, R).
        masks: bool (B, R, H, W).
        sizes: int64 (B, 2), height and width of each image in its masks, from the top left.

    Returns:
        (B, R).
    """
    rows, columns = (torch.arange(COMPARED, device=masks.device) * sizes[:, :, None] // COMPARED).unbind(1)
    seen = masks.gather(2, rows[:, None, :, None].expand(-1, masks.shape[1], -1, masks.shape[3]))
    seen = seen.gather(3, columns[:, None, None].expand(-1, *seen.shape[1:3], -1)).flatten(2).float()
    same_class = labels[:, :, None] == labels[:, None, :]
    return decay_scores(scores, mask_iou(seen, seen) * same_class)


def unique_objects(found: InstanceData) -> InstanceData:
    """What was found in an image, with `unique_scores`, the best first."""
    # Each side by itself: a GPU does not wait for it, as it does for a list of both.
    size = torch.cat([found.labels.new_full((1, 1), side) for side in found.masks.shape[-2:]], dim=1)
    found.scores = unique_scores(found.scores[None], found.labels[None], found.masks[None], size)[0]
    return found[found.scores.argsort(descending=True)]


def _refined(found: InstanceData, settings: Mapping[str, Any]) -> InstanceData:
    """What was found in an image, as `test_cfg` has it: with `rescore`, `unique_objects`; with `one_piece`, in one."""
    if settings.get("rescore"):
        found = unique_objects(found)
    if settings.get("one_piece"):
        found.masks = largest_pieces(found.masks)
    return found


@MODELS.register_module()
class UniqueRoIHead(SparseRoIHead):
    """QueryInst's head; MMDetection's, where its `test_cfg` has no `rescore` and no `one_piece`."""

    def predict(self, *args: Any, **kwargs: Any) -> list[InstanceData]:
        """The objects of each image, as MMDetection's."""
        return [_refined(found, self.test_cfg) for found in super().predict(*args, **kwargs)]


@MODELS.register_module()
class UniqueFusionHead(MaskFormerFusionHead):
    """Mask2Former's and MaskFormer's last step; MMDetection's, where `test_cfg` has neither of the two."""

    def instance_postprocess(self, mask_cls: Tensor, mask_pred: Tensor) -> InstanceData:
        """The objects of one image, from the logits of classes (N, K + 1) and of masks (N, H, W)."""
        found = _refined(super().instance_postprocess(mask_cls, mask_pred), self.test_cfg)
        if self.test_cfg.get("one_piece"):
            found.bboxes = mask2bbox(found.masks)  # they were those of the masks
        return found
