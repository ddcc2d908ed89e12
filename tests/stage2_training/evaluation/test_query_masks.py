from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from mmdet.models.detectors import BaseDetector

from stage1_proposals.common.errors import UserError
from stage2_training.evaluation.query_masks import SIDE, query_masks

HEIGHT, WIDTH = 60, 90  # of the image in its padded input


@pytest.fixture
def batch(make_batch: Callable) -> tuple:
    """Two images whose images are of 200 x 200 pixels, for the detectors' own masks to be of that size."""
    images, samples = make_batch([1, 2])
    for sample in samples:
        sample.set_metainfo({"ori_shape": (SIDE, SIDE), "scale_factor": (WIDTH / SIDE, HEIGHT / SIDE)})
    return images, samples


@pytest.mark.parametrize("name", ["knet", "mask2former", "maskformer", "queryinst"])
def test_what_is_detected_is_over_one_half_of_some_querys_mask(
    name: str, build_knet: Callable, build_adapted: Callable, batch: tuple
) -> None:
    """The detectors' own masks are in another order, of likely classes only, and interpolated in other steps."""
    model: BaseDetector = (build_knet() if name == "knet" else build_adapted(name)).eval()
    if name == "knet":  # whose probabilities are interpolated, not logits: of small ones that is the same
        torch.nn.init.normal_(model.roi_head.mask_head[-1].fc_mask.weight, std=1e-3)
    if name == "maskformer":  # which starts from equal queries, and predicts one mask
        torch.nn.init.normal_(model.panoptic_head.query_embed.weight, std=5)
    if name == "queryinst":  # which of each query detects a mask for each class
        torch.nn.init.constant_(model.roi_head.bbox_head[-1].fc_cls.bias[1], 10)
        torch.nn.init.normal_(model.roi_head.mask_head[-1].conv_logits.weight)
    found = query_masks(model, *batch)
    assert found.shape == (2, 6, SIDE, SIDE)
    assert 0 <= found.min() < found.max() <= 1
    with torch.no_grad():
        detected = model(*batch, mode="predict")
    partial = 0
    for masks, sample in zip(found > 0.5, detected, strict=True):
        for mask in sample.pred_instances.masks:
            agreement = (masks == mask).float().mean(dim=(1, 2))
            assert agreement.max() > 0.97
            partial += 0.02 < mask.float().mean() < 0.98
    assert partial > 0


def test_masks_of_a_whole_image_are_those_of_its_part_of_the_input(build_knet: Callable, make_batch: Callable) -> None:
    images, samples = make_batch([1])
    samples[0].set_metainfo({"img_shape": (64, 48)})  # the left half of the input
    model = build_knet().eval()
    found = query_masks(model, images, samples)
    with torch.no_grad():
        logits = model(images, samples)[1]
    slow = F.interpolate(logits, size=(SIDE, 2 * SIDE), mode="bilinear", align_corners=False)[..., :SIDE].sigmoid()
    torch.testing.assert_close(found, slow, rtol=0, atol=1e-4)


def test_each_mask_of_queryinst_is_in_its_querys_box(build_adapted: Callable, batch: tuple) -> None:
    """Two queries whose boxes are far apart exchange their masks when they exchange their places."""
    model = build_adapted("queryinst").eval()
    head = model.rpn_head
    with torch.no_grad():
        head.init_proposal_bboxes.weight[:2] = torch.tensor([[0.2, 0.2, 0.2, 0.2], [0.8, 0.8, 0.2, 0.2]])
        for stage in model.roi_head.bbox_head:
            torch.nn.init.zeros_(stage.fc_reg.weight)  # boxes stay where they start
            torch.nn.init.zeros_(stage.fc_reg.bias)
        first = query_masks(model, *batch)
        for table in (head.init_proposal_bboxes.weight, head.init_proposal_features.weight):
            table[:2] = table[[1, 0]].clone()
        second = query_masks(model, *batch)
    torch.testing.assert_close(first[:, [1, 0]], second[:, :2], rtol=0, atol=1e-4)
    assert first[:, 0, 25:55, 25:55].mean() > 0.1
    assert first[:, 0, 70:].max() == first[:, 0, :, 70:].max() == 0
    assert first[:, 1, :130].max() == 0


def test_a_detector_without_queries_is_refused(build_adapted: Callable, batch: tuple) -> None:
    with pytest.raises(UserError, match="SOLOv2: has no queries"):
        query_masks(build_adapted("solov2"), *batch)
