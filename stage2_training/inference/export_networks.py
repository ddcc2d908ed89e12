"""Detectors as functions of tensors alone, which ONNX and TorchScript can hold: from a batch of images to instances.

MMDetection's own `predict` takes image sizes from Python objects and branches on what it finds, so a trace of it would
hold the decisions of a single image. Here, sizes are an input, and nothing branches.
"""

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
import torchvision
from mmdet.models.detectors import BaseDetector
from torch import Tensor, nn

from stage1_proposals.common.errors import UserError
from stage2_training.knet.losses import upsample_masks
from stage2_training.knet.postprocess import rescored
from stage2_training.models.unique_objects import unique_scores


class ExportNetwork(nn.Module):
    """A detector as a network of tensors.

    Args:
        model: in evaluation mode.
    """

    dynamic_batch = True

    def __init__(self, model: BaseDetector) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor, sizes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Find instances.

        Args:
            images: float32 (B, 3, H, W), normalised; each stands at the top left, padding is 0.
            sizes: int64 (B, 2), height and width of each image without its padding.

        Returns:
            scores: float32 (B, R).
            labels: int64 (B, R).
            masks: float32 (B, R, H, W), probabilities; 0 in the padding.
        """
        height, width = images.shape[-2:]
        rows, columns = (torch.arange(length, device=images.device) for length in (height, width))
        inside = (rows[:, None] < sizes[:, :1, None]) & (columns < sizes[:, 1:, None])  # (B, H, W)
        return self.instances(self.model.extract_feat(images), sizes, inside[:, None].float())

    @abstractmethod
    def instances(self, features: Sequence[Tensor], sizes: Tensor, inside: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """From the neck's features; `inside` float32 (B, 1, H, W) is 1 in the images and 0 in the padding."""


class KNetNetwork(ExportNetwork):
    """K-Net, as `predict_instances`."""

    def instances(self, features: Sequence[Tensor], sizes: Tensor, inside: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        initial = self.model.rpn_head(features)
        last = self.model.roi_head(initial.features, initial.kernels, initial.mask_logits)[-1]
        settings, scores = self.model.test_cfg, last.cls_logits.sigmoid()
        if settings.get("rescore"):
            scores = rescored(scores, last.mask_logits, settings.get("mask_threshold", 0.5))
        scores, labels, kernels = _best_pairs(scores, settings.get("max_per_img", 100))
        masks = upsample_masks(_rows(last.mask_logits, kernels)).sigmoid()
        masks = F.interpolate(masks, size=inside.shape[-2:], mode="bilinear", align_corners=False)
        return scores, labels, masks * inside


class Mask2FormerNetwork(ExportNetwork):
    """Mask2Former, as MMDetection's `instance_postprocess`: a score is its class's times the mean of its mask."""

    def instances(self, features: Sequence[Tensor], sizes: Tensor, inside: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        classes, masks = (layers[-1] for layers in self.model.panoptic_head(features, []))
        settings = self.model.panoptic_fusion_head.test_cfg
        scores, labels, queries = _best_pairs(classes.softmax(-1)[..., :-1], settings.get("max_per_image", 100))
        masks = F.interpolate(_rows(masks, queries), size=inside.shape[-2:], mode="bilinear", align_corners=False)
        masks = masks.sigmoid() * inside
        object_pixels = (masks > 0.5).float()
        certainty = (masks * object_pixels).sum((-2, -1)) / (object_pixels.sum((-2, -1)) + 1e-6)
        scores = scores * certainty
        if settings.get("rescore"):
            scores = unique_scores(scores, labels, masks > 0.5, sizes)
        return scores, labels, masks


class QueryInstNetwork(ExportNetwork):
    """QueryInst: the boxes of one stage are where the next one looks; the last one's have masks."""

    def instances(self, features: Sequence[Tensor], sizes: Tensor, inside: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        start, head = self.model.rpn_head, self.model.roi_head
        centers, extents = start.init_proposal_bboxes.weight.split(2, dim=-1)  # of the image's width and height
        boxes = torch.cat([centers - extents / 2, centers + extents / 2], dim=-1)
        boxes = boxes * sizes.flip(1).repeat(1, 2)[:, None].float()  # (B, N, 4)
        queries = start.init_proposal_features.weight[None].expand(boxes.shape[0], -1, -1)
        scores = attended = queries  # replaced in each stage
        for extractor, bbox_head in zip(head.bbox_roi_extractor, head.bbox_head, strict=True):
            regions = _align(extractor, features, _indexed(boxes))
            scores, deltas, queries, attended = bbox_head(regions, queries)
            flat = _decode(bbox_head.bbox_coder, boxes.reshape(-1, 4), deltas.reshape(-1, 4))
            boxes = flat.reshape(boxes.shape)
        masks = head.mask_head[-1](_align(head.mask_roi_extractor[-1], features, _indexed(boxes)), attended)
        scores, labels, chosen = _best_pairs(scores.sigmoid(), head.test_cfg.max_per_img)
        by_query = masks.sigmoid().reshape(*boxes.shape[:2], *masks.shape[1:])  # (B, N, K, h, w)
        images = torch.arange(boxes.shape[0], device=boxes.device)[:, None]
        small = by_query[images, chosen, labels]
        pasted = _paste(small.flatten(0, 1), _rows(boxes, chosen).flatten(0, 1), inside)
        masks = pasted.reshape(*scores.shape, *inside.shape[-2:]) * inside
        if head.test_cfg.get("rescore"):
            scores = unique_scores(scores, labels, masks > 0.5, sizes)
        return scores, labels, masks


class MaskRCNNNetwork(ExportNetwork):
    """Mask R-CNN, for a single image: of each, non-maximum suppression leaves another number of boxes."""

    dynamic_batch = False

    def instances(self, features: Sequence[Tensor], sizes: Tensor, inside: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        head, limits = self.model.roi_head, sizes[0].flip(0).repeat(2).float()
        boxes = self._proposals(features, limits)
        classes, deltas = head.bbox_head(_align(head.bbox_roi_extractor, features, _indexed(boxes[None])))
        count = head.bbox_head.num_classes
        per_class = boxes[:, None].expand(-1, count, -1).reshape(-1, 4)
        boxes = _decode(head.bbox_head.bbox_coder, per_class, deltas.reshape(-1, 4))
        boxes = torch.minimum(boxes.clamp(min=0), limits)
        scores, settings = classes.softmax(-1)[:, :-1].reshape(-1), head.test_cfg
        kept = (scores > settings.score_thr).nonzero()[:, 0]
        boxes, scores, labels = boxes[kept], scores[kept], kept % count
        kept = _suppress(boxes, scores, labels, settings.nms.iou_threshold)[: settings.max_per_img]
        boxes, scores, labels = boxes[kept], scores[kept], labels[kept]
        masks = head.mask_head(_align(head.mask_roi_extractor, features, _indexed(boxes[None]))).sigmoid()
        masks = masks[torch.arange(labels.shape[0], device=labels.device), labels]
        return scores[None], labels[None], _paste(masks, boxes, inside)[None] * inside

    def _proposals(self, features: Sequence[Tensor], limits: Tensor) -> Tensor:
        """The boxes (R, 4) of the region proposal network."""
        head = self.model.rpn_head
        settings, levels = head.test_cfg, head(features)
        priors = head.prior_generator.grid_priors([level.shape[-2:] for level in levels[0]], device=limits.device)
        boxes, scores, origins = [], [], []
        for number, (objectness, deltas, anchors) in enumerate(zip(*levels, priors, strict=True)):
            order = objectness[0].permute(1, 2, 0).reshape(-1).sigmoid().sort(descending=True)
            best = order.indices[: settings.nms_pre]
            scores.append(order.values[: settings.nms_pre])
            boxes.append(_decode(head.bbox_coder, anchors[best], deltas[0].permute(1, 2, 0).reshape(-1, 4)[best]))
            origins.append(torch.full_like(best, number))
        found = torch.minimum(torch.cat(boxes).clamp(min=0), limits)
        has_area = ((found[:, 2:] - found[:, :2]) > settings.min_bbox_size).all(dim=1).nonzero()[:, 0]
        found = found[has_area]
        kept = _suppress(found, torch.cat(scores)[has_area], torch.cat(origins)[has_area], settings.nms.iou_threshold)
        return found[kept[: settings.max_per_img]]


# Of detectors, by the name of MMDetection's class, of which a Saliency Prompt variant has the same predictions.
NETWORKS: dict[str, type[ExportNetwork]] = {
    "KNet": KNetNetwork,
    "Mask2Former": Mask2FormerNetwork,
    "QueryInst": QueryInstNetwork,
    "MaskRCNN": MaskRCNNNetwork,
}


def export_network(model: BaseDetector) -> ExportNetwork:
    """The network of a detector.

    Raises:
        UserError: there is none for this type.
    """
    name = type(model).__name__.removeprefix("SaliencyPrompt")
    if name not in NETWORKS:
        raise UserError(
            f"{name}: cannot be exported as a network; {', '.join(NETWORKS)} can, and --format weights takes any model"
        )
    return NETWORKS[name](model).eval()


def _best_pairs(scores: Tensor, most: int) -> tuple[Tensor, Tensor, Tensor]:
    """Scores (B, N, K) of queries and classes -> the R best, in descending order, with class and query, (B, R) each."""
    queries, classes = scores.shape[1:]
    best, pairs = scores.flatten(1).topk(min(most, int(queries) * int(classes)))
    return best, pairs % int(classes), pairs // int(classes)


def _rows(values: Tensor, rows: Tensor) -> Tensor:
    """(B, N, ...) at (B, R) -> (B, R, ...)."""
    return values[torch.arange(values.shape[0], device=values.device)[:, None], rows]


def _indexed(boxes: Tensor) -> Tensor:
    """Boxes (B, N, 4) -> (B N, 5), each after its image's number, as RoIAlign takes them."""
    numbers = torch.arange(boxes.shape[0], device=boxes.device, dtype=boxes.dtype)[:, None, None]
    return torch.cat([numbers.expand(-1, boxes.shape[1], -1), boxes], dim=-1).reshape(-1, 5)


def _align(extractor: Any, features: Sequence[Tensor], boxes: Tensor) -> Tensor:
    """MMDetection's RoI extractor on boxes (R, 5), without its branches: each box is looked up at every level.

    torchvision's RoIAlign has ONNX's conventions; MMCV's are those of an older set of operators.
    """
    levels = extractor.map_roi_levels(boxes, len(extractor.roi_layers))
    aligned: Tensor | float = 0.0
    for number, (layer, level) in enumerate(zip(extractor.roi_layers, features, strict=False)):
        regions = torchvision.ops.roi_align(
            level, boxes, layer.output_size, layer.spatial_scale, layer.sampling_ratio, layer.aligned
        )
        aligned = aligned + regions * (levels == number)[:, None, None, None].to(regions.dtype)
    return torch.as_tensor(aligned)


def _decode(coder: Any, boxes: Tensor, deltas: Tensor) -> Tensor:
    """Boxes (R, 4) moved by what a head predicts, (R, 4): MMDetection's `DeltaXYWHBBoxCoder` without clipping."""
    deltas = deltas * deltas.new_tensor(coder.stds) + deltas.new_tensor(coder.means)
    extents = boxes[:, 2:] - boxes[:, :2]
    centers = (boxes[:, :2] + boxes[:, 2:]) / 2 + extents * deltas[:, :2]
    most = 4.135166556742356  # of a logarithm: log(1000 / 16), MMDetection's default
    halves = extents * deltas[:, 2:].clamp(-most, most).exp() / 2
    return torch.cat([centers - halves, centers + halves], dim=1)


def _suppress(boxes: Tensor, scores: Tensor, groups: Tensor, threshold: float) -> Tensor:
    """The rows that non-maximum suppression among boxes of equal group keeps, the best first."""
    apart = groups.to(boxes.dtype) * (boxes.abs().sum(dim=0).max() + 1)  # boxes of other groups do not overlap
    return torchvision.ops.nms(boxes + apart[:, None], scores, threshold)


def _paste(masks: Tensor, boxes: Tensor, inside: Tensor) -> Tensor:
    """Masks (R, h, w) of boxes (R, 4) in pixels -> (R, H, W) of the whole input, 0 outside the boxes."""
    axes = []
    for axis, length in ((0, inside.shape[-1]), (1, inside.shape[-2])):
        centers = torch.arange(length, device=boxes.device) + 0.5
        start, end = boxes[:, axis, None], boxes[:, axis + 2, None]
        axes.append(2 * (centers - start) / (end - start).clamp(min=1e-6) - 1)  # (R, length)
    x, y = axes
    grid = torch.stack(torch.broadcast_tensors(x[:, None, :], y[:, :, None]), dim=-1)
    return F.grid_sample(masks[:, None], grid, align_corners=False)[:, 0]
