import copy
from typing import Any

import pytest
import torch
from mmdet.models.dense_heads import DETRHead
from mmdet.models.losses import FocalLoss
from mmdet.models.roi_heads.roi_extractors import SingleRoIExtractor
from mmdet.models.task_modules.assigners import AssignResult, HungarianAssigner
from mmdet.registry import TASK_UTILS
from mmdet.structures import DetDataSample
from mmengine.config import ConfigDict
from mmengine.registry import DefaultScope
from mmengine.structures import InstanceData

from stage2_training.models.mmdet_fixes import (
    BoundedDynamicMaskHead,
    Float32FocalLoss,
    Float32RoIExtractor,
    ListWeightsDETRHead,
)

EXTRACTOR = {
    "roi_layer": {"type": "RoIAlign", "output_size": 2, "sampling_ratio": 2},
    "out_channels": 1,
    "featmap_strides": [4, 8],
}
CONV = {"type": "DynamicConv", "in_channels": 4, "feat_channels": 2, "out_channels": 4, "input_feat_shape": 14}


def test_boxes_are_not_rounded_under_autocast() -> None:
    """A ramp shows where a box is taken to lie."""
    feats = [torch.arange(256.0).expand(1, 1, 16, -1).bfloat16(), torch.zeros(1, 1, 8, 128).bfloat16()]
    rois = torch.tensor([[0, 701.0, 8.0, 709.0, 16.0]])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = Float32RoIExtractor(**EXTRACTOR)(feats, rois)
    assert found.dtype == torch.float32
    expected = SingleRoIExtractor(**EXTRACTOR)([feat.float() for feat in feats], rois)
    torch.testing.assert_close(found, expected)
    assert found.mean() == pytest.approx(705 / 4 - 0.5, abs=0.3)


@pytest.mark.parametrize(("factor", "divisor"), [(0.0, 1.0), (0.5, 1.0), (3.0, 3.0)])
def test_focal_loss_is_per_object_and_at_least_one(factor: float, divisor: float) -> None:
    logits, labels = torch.randn(5, 2), torch.tensor([0, 2, 1, 2, 2])
    total = FocalLoss(reduction="sum")(logits, labels)
    for avg_factor in (factor, torch.tensor(factor)):
        assert Float32FocalLoss()(logits, labels, avg_factor=avg_factor).item() == pytest.approx(total.item() / divisor)
    assert Float32FocalLoss()(logits.bfloat16(), labels, avg_factor=factor).dtype == torch.float32


def test_a_list_of_class_weights_gives_the_losses_of_mmdetections_two_numbers() -> None:
    listed = {"type": "CrossEntropyLoss", "class_weight": [1.0, 1.0, 0.1]}
    kept = copy.deepcopy(listed)
    sizes = {"num_classes": 2, "embed_dims": 8}
    with DefaultScope.overwrite_default_scope("mmdet"):
        head = ListWeightsDETRHead(loss_cls=listed, **sizes)
        ListWeightsDETRHead(loss_cls=listed, **sizes)
        original = DETRHead(loss_cls={"type": "CrossEntropyLoss", "class_weight": 1.0, "bg_cls_weight": 0.1}, **sizes)
    assert listed == kept
    original.load_state_dict(head.state_dict(), strict=False)
    sample = DetDataSample(metainfo={"img_shape": (40, 60)})
    boxes = torch.tensor([[4.0, 4.0, 30.0, 20.0], [10.0, 2.0, 50.0, 38.0]])
    sample.gt_instances = InstanceData(bboxes=boxes, labels=torch.tensor([1, 0]))
    states = torch.randn(2, 1, 5, 8)
    expected = original.loss(states, [sample])
    found = head.loss(states, [sample])
    assert {name: value.item() for name, value in found.items()} == pytest.approx(
        {name: value.item() for name, value in expected.items()}
    )


def test_boxes_of_detr_are_not_rounded_under_autocast() -> None:
    """Nor are the sides of the image, here 1333 pixels: their losses are those of the same queries in float32."""
    loss_cls = {"type": "CrossEntropyLoss", "class_weight": [1.0, 0.1]}
    with DefaultScope.overwrite_default_scope("mmdet"):
        head = ListWeightsDETRHead(num_classes=1, embed_dims=8, loss_cls=loss_cls)
    sample = DetDataSample(metainfo={"img_shape": (800, 1333)})
    sample.gt_instances = InstanceData(bboxes=torch.tensor([[900.0, 4.0, 1330.0, 790.0]]), labels=torch.tensor([0]))
    states = torch.randn(2, 1, 5, 8).bfloat16()
    expected = head.loss(states.float(), [sample])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = head.loss(states, [sample])
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("rescale", [True, False])
def test_boxes_outside_the_image_have_empty_masks(rescale: bool) -> None:
    sizes = {"num_convs": 0, "num_classes": 1, "in_channels": 4, "conv_out_channels": 4, "dynamic_conv_cfg": CONV}
    with DefaultScope.overwrite_default_scope("mmdet"):
        head = BoundedDynamicMaskHead(**sizes)
    meta = {"ori_shape": (40, 61), "scale_factor": (0.5, 0.5)}
    inside = [[2.0, 2.0, 10.0, 10.0], [-5.0, 3.0, 4.0, 30.0]]
    outside = [[5, -90, 25, -30], [-40, 2, -9, 15], [31, 2, 44, 15], [5, 20.5, 9, 90], [60, 70, 80, 90.0]]
    boxes = torch.tensor(inside + outside)
    logits = torch.full((len(boxes), 1, 28, 28), 9.0)
    masks = head._predict_by_feat_single(
        mask_preds=logits,
        bboxes=boxes.clone(),
        labels=torch.zeros(len(boxes), dtype=torch.long),
        img_meta=meta,
        rcnn_test_cfg=ConfigDict(mask_thr_binary=0.5),
        rescale=rescale,
    )
    assert masks.shape[1:] == ((40, 61) if rescale else (20, 30))
    assert masks.flatten(1).any(dim=1).tolist() == [True] * 2 + [False] * 5
    factor = 2 if rescale else 1
    assert masks[0].sum() == (8 * factor) ** 2


COSTS = [
    {"type": "BBoxL1Cost", "weight": 5.0, "box_format": "xyxy"},
    {"type": "IoUCost", "iou_mode": "giou", "weight": 2.0},
    {"type": "FocalLossCost", "weight": 2.0},
]


def assigners(match_costs: Any) -> list[HungarianAssigner]:
    """Ours and MMDetection's."""
    with DefaultScope.overwrite_default_scope("mmdet"):
        return [
            TASK_UTILS.build({"type": name, "match_costs": match_costs})
            for name in ("NaNSafeHungarianAssigner", "HungarianAssigner")
        ]


def random_instances(count: int, *, truth: bool) -> InstanceData:
    corners = torch.rand(count, 2, 2) * 40
    boxes = torch.cat([corners.amin(dim=1), corners.amax(dim=1) + 1], dim=1)
    if truth:
        return InstanceData(bboxes=boxes, labels=torch.randint(0, 3, (count,)))
    return InstanceData(bboxes=boxes, scores=torch.randn(count, 3))


@pytest.mark.parametrize("match_costs", [COSTS, COSTS[0]], ids=["several costs", "one cost"])
@pytest.mark.parametrize("instances", [0, 4, 12])
def test_finite_costs_are_matched_as_by_mmdetection(match_costs: Any, instances: int) -> None:
    torch.manual_seed(instances)
    ours, theirs = assigners(match_costs)
    for _ in range(20):
        arguments = random_instances(8, truth=False), random_instances(instances, truth=True), {"img_shape": (48, 48)}
        found, expected = ours.assign(*arguments), theirs.assign(*arguments)
        assert torch.equal(found.gt_inds, expected.gt_inds)
        assert torch.equal(found.labels, expected.labels)


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_matching_survives_costs_that_are_not_finite(value: float) -> None:
    ours, theirs = assigners({"type": "BBoxL1Cost"})
    boxes = torch.tensor([[0.0, 0, 4, 4], [0, 0, 8, 8], [4, 4, 8, 8]])
    truth = InstanceData(bboxes=boxes[[2, 0]], labels=torch.tensor([1, 0]))
    meta = {"img_shape": (8, 8)}
    found = ours.assign(InstanceData(bboxes=boxes, scores=torch.zeros(3, 2)), truth, meta)
    assert found.gt_inds.tolist() == [2, 0, 1]  # one more than the index, 0 for none
    diverged = InstanceData(bboxes=boxes * value, scores=torch.zeros(3, 2))
    assert sorted(ours.assign(diverged, truth, meta).gt_inds.tolist()) == [0, 1, 2]
    with pytest.raises(ValueError, match=r"matrix contains invalid|infeasible"):  # else the fix is no longer needed
        theirs.assign(diverged, truth, meta)


def test_results_are_reported_to_the_observer_only_while_there_is_one() -> None:
    ours, _ = assigners(COSTS)
    arguments = random_instances(5, truth=False), random_instances(2, truth=True), {"img_shape": (48, 48)}
    reported: list[AssignResult] = []
    ours.assign(*arguments)
    ours.observer = reported.append
    found = ours.assign(*arguments)
    ours.observer = None
    ours.assign(*arguments)
    assert reported == [found]
