import pytest
import torch
from mmdet.models.losses import FocalLoss
from mmdet.models.roi_heads.roi_extractors import SingleRoIExtractor
from mmengine.config import ConfigDict

from stage2_training.models.mmdet_fixes import BoundedDynamicMaskHead, Float32FocalLoss, Float32RoIExtractor

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


@pytest.mark.parametrize("rescale", [True, False])
def test_boxes_outside_the_image_have_empty_masks(rescale: bool) -> None:
    head = BoundedDynamicMaskHead(num_convs=0, num_classes=1, in_channels=4, conv_out_channels=4, dynamic_conv_cfg=CONV)
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
