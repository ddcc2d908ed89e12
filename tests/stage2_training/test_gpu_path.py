"""The models on a GPU that is not there: a CPU's losses and masks, and the GPU waits only where it is known to.

Of this project's places, the number of waits is known as well. MMDetection's wait for each image and layer.
"""

import importlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import PurePath
from typing import Any

import pytest
import torch
from mmdet.structures import DetDataSample
from torch import Tensor

from stage1_proposals.common.masks import encode_masks
from stage2_training.data.rle_masks import RunLengthMasks
from stage2_training.evaluation.coco_metric import MaskAP
from stage2_training.evaluation.query_masks import query_masks
from stage2_training.models import mmcv_operators
from tests.fake_gpu import FakeGPU, fake_gpu, values_of

# This project's places, and how often the GPU waits there in a training pass.
OWN_IN_LOSSES = {
    "knet": {"assignment.py:assign": 3},  # the costs of a stage, of the whole batch
    "mask_rcnn": {"mmcv_operators.py:nms": 3},  # an image's
    "freesolo": {"weak_mask_loss.py:similar_neighbors": 6, "detectors.py:loss": 1},  # an image's colours, to and fro
}
# The same in predicting two images, and in what `query_masks` adds.
OWN_IN_PREDICTIONS = {
    "knet": {"postprocess.py:predict_instances": 2},
    "queryinst": {"mmdet_fixes.py:_predict_by_feat_single": 4},
    "mask_rcnn": {"mmcv_operators.py:nms": 4},
}
OWN_IN_QUERY_MASKS = {
    "knet": {"query_masks.py:query_masks": 2},
    "mask2former": {"query_masks.py:query_masks": 2},
    "maskformer": {"query_masks.py:query_masks": 2},
    "queryinst": {"query_masks.py:query_masks": 1, "detectors.py:_queryinst_query_masks": 1},
}
# The libraries' modules in which the GPU waits, for each image and layer or level.
MASK_TRANSFORMER = "hungarian_assigner mask_pseudo_sampler cross_entropy_loss structures maskformer_fusion_head utils"
BOXES = "single_level_roi_extractor delta_xywh_bbox_coder bbox_overlaps smooth_l1_loss bbox_head fcn_mask_head"
BOXES = f"{BOXES} mask_target structures"
DETR = "bbox_overlaps detr_head hungarian_assigner iou_loss match_cost smooth_l1_loss"
LIBRARIES = {
    "knet": "",
    "mask2former": f"{MASK_TRANSFORMER} mask2former_head msdeformattn_pixel_decoder multi_scale_deform_attn",
    "maskformer": f"{MASK_TRANSFORMER} maskformer_head pixel_decoder",
    "queryinst": f"{BOXES} hungarian_assigner embedding_rpn_head match_cost pseudo_sampler dii_head iou_loss "
    "dynamic_mask_head",
    "mask_rcnn": f"{BOXES} anchor_generator anchor_head max_iou_assigner random_sampler base_sampler misc "
    "cross_entropy_loss rpn_head nms boxes bbox_nms _autograd_registrations",
    "solov2": "structures solov2_head utils",
    "detr": f"{DETR} cross_entropy_loss detr",
    "deformable_detr": f"{DETR} deformable_detr deformable_detr_layers multi_scale_deform_attn",
    "freesolo": "structures solov2_head utils",
}
PROMPTED = ("knet", "mask2former", "maskformer", "queryinst")
MODELS = (*PROMPTED, "mask_rcnn", "solov2")
# Pre-training of FreeSOLO, UP-DETR and DETReg.
SETTINGS: dict[str, dict[str, Any]] = {
    "freesolo": {"matching": "none", "kernel_loss": "reconstruct"},
    "detr": {"matching": "sequential", "groups": True, "kernel_loss": "reconstruct", "kernel_target": "prompt"},
    "deformable_detr": {"matching": "none", "kernel_loss": "regress"},
}


@pytest.fixture(autouse=True)
def operators_in_pytorch(monkeypatch: pytest.MonkeyPatch) -> None:
    """MMCV's own, where they are there, are compiled for the CPU."""
    for user in ("nms", "roi_align", "focal_loss", "multi_scale_deform_attn"):
        monkeypatch.setattr(importlib.import_module(f"mmcv.ops.{user}"), "ext_module", mmcv_operators)


def tensors(losses: Mapping[str, Any]) -> Iterator[Tensor]:
    for name, value in losses.items():
        if "loss" in name:
            yield from value if isinstance(value, list) else [value]


def total(losses: Mapping[str, Any]) -> float:
    return sum(float(values_of(loss)) for loss in tensors(losses))


def with_run_lengths(samples: list[DetDataSample]) -> list[DetDataSample]:
    """Masks as pre-training reads them from shards."""
    for sample in samples:
        bitmaps = sample.gt_instances.masks.masks
        sample.gt_instances.masks = RunLengthMasks([one["counts"] for one in encode_masks(bitmaps)], bitmaps.shape[1:])
    return samples


def check_waits(gpu: FakeGPU, name: str, own: dict[str, int]) -> None:
    """The GPU waited so often at these places of ours, and else only where a model's libraries make it; forget it."""
    counts: Counter[str] = Counter()
    for (place, _), number in gpu.waits.items():
        counts[place] += number
    gpu.waits.clear()
    assert {place: number for place, number in counts.items() if "/" not in place} == own
    modules = {PurePath(place.split(":")[0]).stem for place in counts if "/" in place}
    assert modules <= set(LIBRARIES[name].split())


@pytest.mark.parametrize("amp", [False, True])
@pytest.mark.parametrize("name", [*MODELS, *SETTINGS])
def test_losses(name: str, amp: bool, build_adapted: Callable, make_batch: Callable) -> None:
    settings = SETTINGS | {prompted: {"kernel_loss": "contrast"} for prompted in PROMPTED}
    model = build_adapted("solov2" if name == "freesolo" else name, settings.get(name))
    images, samples = make_batch([3, 0, 2])
    samples = with_run_lengths(samples)
    torch.manual_seed(0)
    expected = total(model(images, [sample.clone() for sample in samples], mode="loss"))
    with fake_gpu() as gpu:
        model.to("cuda")
        images, samples = images.to("cuda"), [sample.to("cuda") for sample in samples]
        gpu.waits.clear()
        torch.manual_seed(0)
        with torch.autocast("cuda", torch.bfloat16, enabled=amp):
            losses = model(images, samples, mode="loss")
        assert total(losses) == pytest.approx(expected, rel=0.1 if amp else 1e-5)
        assert all(loss.device.type == "cuda" for loss in tensors(losses))
        check_waits(gpu, name, OWN_IN_LOSSES.get(name, {}))


@pytest.mark.parametrize("name", MODELS)
def test_predictions(name: str, build_adapted: Callable, make_batch: Callable, write_labels: Callable) -> None:
    model = build_adapted(name).eval()
    images, samples = make_batch([2, 0])
    with torch.no_grad():
        expected = model(images, [sample.clone() for sample in samples], mode="predict")
    with fake_gpu() as gpu, torch.no_grad():
        model.to("cuda")
        images, samples = images.to("cuda"), [sample.to("cuda") for sample in samples]
        gpu.waits.clear()
        found = model(images, samples, mode="predict")
        check_waits(gpu, name, OWN_IN_PREDICTIONS.get(name, {}))
        labels = next(write_labels(images=2, size=(64, 64)).rglob("*.json"))
        evaluated, on_cpu = MaskAP(str(labels)), MaskAP(str(labels))
        evaluated.process(None, [one.to_dict() | {"img_id": 1} for one in found])
        on_cpu.process(None, [one.to_dict() | {"img_id": 1} for one in expected])
        for one, other in zip(evaluated.results, on_cpu.results, strict=True):
            assert one.pop("score") == pytest.approx(other.pop("score"))
            assert one == other
        gpu.waits.clear()
        if name in PROMPTED:
            assert query_masks(model, images, samples).device.type == "cuda"
            check_waits(gpu, name, OWN_IN_QUERY_MASKS[name])
    for one, other in zip(found, expected, strict=True):
        assert one.pred_instances.masks.device.type == "cuda"
        torch.testing.assert_close(values_of(one.pred_instances.scores), other.pred_instances.scores)
        assert torch.equal(values_of(one.pred_instances.masks), other.pred_instances.masks)
