"""An object of 3 x 3 pixels survives resizing, the models' targets and their post-processing."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from mmdet.structures import DetDataSample
from mmdet.structures.bbox import HorizontalBoxes
from mmdet.structures.mask import BitmapMasks
from mmengine.config import ConfigDict
from mmengine.dataset import Compose
from mmengine.registry import DefaultScope
from mmengine.structures import InstanceData
from pycocotools import mask as coco_mask

from stage2_training.data import BoxesFromMasks, RunLengthMasks
from stage2_training.knet.assignment import instance_targets
from stage2_training.knet.postprocess import predict_instances


def small(side: int = 64) -> tuple[BitmapMasks, torch.Tensor]:
    """A mask for each of the places that 3 x 3 pixels can have in a cell of 8 x 8, and their boxes."""
    places = [(y, x) for y in range(16, 24) for x in range(24, 32)]
    masks = np.zeros((len(places), side, side), np.uint8)
    for mask, (y, x) in zip(masks, places, strict=True):
        mask[y : y + 3, x : x + 3] = 1
    return BitmapMasks(masks, side, side), torch.tensor([[x, y, x + 3, y + 3] for y, x in places]).float()


@pytest.mark.parametrize("scale", [16, 24, 40, 64])
@pytest.mark.parametrize("kept_as", ["bitmaps", "run lengths"])
def test_resizing_leaves_a_pixel(scale: int, kept_as: str) -> None:
    masks, boxes = small()
    if kept_as == "run lengths":
        rles = coco_mask.encode(np.asfortranarray(masks.masks.transpose(1, 2, 0)))
        masks = RunLengthMasks([rle["counts"] for rle in rles], (64, 64))
    results = {
        "img": np.zeros((64, 64, 3), np.uint8),
        "img_shape": (64, 64),
        "gt_bboxes": HorizontalBoxes(boxes),
        "gt_masks": masks,
    }
    with DefaultScope.overwrite_default_scope("mmdet"):
        resize = {"type": "Resize", "scale": (scale, scale), "keep_ratio": True}
        results = Compose([resize, BoxesFromMasks()])(results)
    assert len(results["gt_masks"]) == len(boxes)
    assert (results["gt_masks"].areas > 0).all()
    middle = (results["gt_bboxes"].tensor[:, :2] + results["gt_bboxes"].tensor[:, 2:]) / 2
    expected = (boxes[:, :2] + boxes[:, 2:]) / 2 * scale / 64
    assert (middle - expected).abs().max() <= 1


def test_a_small_mask_that_was_rotated_out_of_the_image_is_dropped() -> None:
    results = {
        "gt_masks": BitmapMasks(np.zeros((1, 64, 64), np.uint8), 64, 64),
        "gt_bboxes": HorizontalBoxes(torch.tensor([[30.0, 0.0, 31.0, 0.0]])),
    }
    assert len(BoxesFromMasks().transform(results)["gt_masks"]) == 0


@pytest.mark.parametrize("pixels", [1, 2, 3])
def test_knets_targets_have_it(pixels: int) -> None:
    """Targets are at stride 4 or finer; a smaller object may lie between the pixels that bilinear resizing takes."""
    masks = small()[0].masks.copy()
    for mask in masks:
        y, x = np.argwhere(mask)[0]
        mask[y + pixels :], mask[:, x + pixels :] = 0, 0
    sample = DetDataSample()
    sample.gt_instances = InstanceData(
        masks=BitmapMasks(masks, 64, 64), labels=torch.zeros(len(masks), dtype=torch.long)
    )
    targets = instance_targets([sample], (16, 16)).masks[0]
    assert (targets.sum(dim=(1, 2)) > 0).all()
    assert targets.max() <= 1


def test_knet_predicts_it() -> None:
    logits = torch.full((1, 8, 8), -9.0)
    logits[0, 3, 4] = 9.0
    found = predict_instances(torch.ones(1, 1), logits, (64, 64), (64, 64), (64, 64))
    assert 9 <= found.masks.sum() <= 100
    assert found.masks[0, 28, 36]


def test_queryinsts_targets_and_predictions_have_it(build_adapted: Any) -> None:
    head = build_adapted("queryinst").roi_head.mask_head[0]
    masks, boxes = small()
    sampled = SimpleNamespace(pos_priors=boxes, pos_assigned_gt_inds=torch.arange(len(boxes)))
    instances = InstanceData(masks=masks, bboxes=boxes)
    targets = head.get_targets([sampled], [instances], ConfigDict(mask_size=28))
    assert targets.shape == (len(boxes), 28, 28)
    assert (targets.flatten(1).mean(dim=1) > 0.9).all()

    found = InstanceData(bboxes=boxes.clone(), labels=torch.zeros(len(boxes), dtype=torch.long))
    metainfo = {"ori_shape": (64, 64), "img_shape": (64, 64), "scale_factor": (1.0, 1.0)}
    settings = ConfigDict(mask_thr_binary=0.5)
    (predicted,) = head.predict_by_feat((torch.full((len(boxes), 3, 28, 28), 9.0),), [found], [metainfo], settings)
    assert np.array_equal(predicted.masks.numpy(), masks.masks.astype(bool))


def test_mask2formers_targets_and_predictions_have_it(build_adapted: Any) -> None:
    model = build_adapted("mask2former").eval()
    masks, boxes = small()
    instances = InstanceData(masks=masks, labels=torch.zeros(len(boxes), dtype=torch.long))
    (prepared,) = model.panoptic_head.preprocess_gt([instances], [None])
    assert prepared.masks.sum(dim=(1, 2)).tolist() == [9] * len(boxes)

    sample = DetDataSample(metainfo={"img_shape": (64, 64), "ori_shape": (64, 64), "batch_input_shape": (64, 64)})
    logits = torch.where(torch.from_numpy(masks.masks[:6]) > 0, 9.0, -9.0)
    scores = torch.tensor([9.0, 0.0, 0.0, 0.0]).repeat(6, 1)
    (found,) = model.panoptic_fusion_head.predict(scores[None], logits[None], [sample], rescale=True)
    best = found["ins_results"].scores > 0.5
    assert best.sum() == 6
    assert found["ins_results"].masks[best].sum(dim=(1, 2)).tolist() == [9] * 6
