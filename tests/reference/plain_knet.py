"""The yardstick: K-Net's training losses the way the official implementation goes about them, image by image.

Ground truth becomes float tensors of the padded input's size. Each image is matched on its own at every stage, with
costs that each compute what they need, and comes back from the CPU on its own. Targets are tensors for all kernels,
zero where nothing is matched, and the matched ones are picked out of them again by boolean index. The network, and the
parts of the loss that MMDetection has from K-Net, are shared with the product, so that both must find the same losses.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from mmdet.models.losses import CrossEntropyLoss, DiceLoss, FocalLoss
from mmdet.models.task_modules.assigners import AssignResult, FocalLossCost
from mmdet.models.task_modules.samplers import MaskPseudoSampler
from mmdet.models.task_modules.samplers.mask_sampling_result import MaskSamplingResult
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from stage2_training.knet import KNet
from stage2_training.knet.assignment import CostWeights
from stage2_training.knet.heads import KernelHeadOutput, StageOutput
from stage2_training.knet.losses import LossWeights

STRIDE = 4
EPS = 1e-3


class PlainKNet(KNet):
    """K-Net with the yardstick's losses."""

    def loss(self, batch_inputs: Tensor, batch_data_samples: Sequence[DetDataSample]) -> dict[str, Tensor]:
        instances = plain_instances(batch_data_samples, batch_inputs.device)
        initial = self.rpn_head(self.extract_feat(batch_inputs))
        stages = self.roi_head(initial.features, initial.kernels, initial.mask_logits)
        return plain_losses(initial, stages, instances, self.cost_weights, self.loss_weights)


class KernelTargets(NamedTuple):
    """What each kernel of an image, or of the batch, should predict."""

    labels: Tensor  # int64 (N,), K for an unmatched kernel
    label_weights: Tensor  # float32 (N, K)
    masks: Tensor  # float32 (N, h, w)
    mask_weights: Tensor  # float32 (N, h, w)


def plain_instances(samples: Sequence[DetDataSample], device: torch.device) -> list[InstanceData]:
    """Per image `labels` and `masks` float32 (L, H / 4, W / 4), resized from the padded input."""
    instances = []
    for sample in samples:
        masks = sample.gt_instances.masks.to_tensor(torch.float, device)
        height, width = sample.batch_input_shape
        masks = F.pad(masks, (0, width - masks.shape[2], 0, height - masks.shape[1]))
        size = (height // STRIDE, width // STRIDE)
        if len(masks):
            masks = F.interpolate(masks[None], size, mode="bilinear", align_corners=False)[0]
        else:
            masks = masks.new_zeros(0, *size)
        instances.append(InstanceData(labels=sample.gt_instances.labels.to(device), masks=masks))
    return instances


def plain_losses(
    initial: KernelHeadOutput,
    stages: Sequence[StageOutput],
    instances: Sequence[InstanceData],
    cost_weights: CostWeights,
    loss_weights: LossWeights,
) -> dict[str, Tensor]:
    """The losses of `knet_losses`, by the same names, in float32."""
    with torch.autocast(initial.mask_logits.device.type, enabled=False):
        masks, seg_logits = upsample(initial.mask_logits), upsample(initial.seg_logits)
        sampled = sample(masks.detach(), None, masks, instances, cost_weights)
        targets = kernel_targets(sampled, masks, instances, seg_logits.shape[1])
        losses = {"loss_rpn_seg": semantic_loss(seg_logits, sampled, instances, loss_weights)}
        losses["loss_rpn_mask"], losses["loss_rpn_dice"] = mask_losses(masks, targets, loss_weights)
        previous_masks, previous_classes = upsample(initial.mask_logits.detach()), None
        for i, stage in enumerate(stages):
            masks, cls_logits = upsample(stage.mask_logits), stage.cls_logits.float()
            sampled = sample(previous_masks, previous_classes, masks, instances, cost_weights)
            targets = kernel_targets(sampled, masks, instances, cls_logits.shape[2])
            losses[f"s{i}.loss_cls"] = class_loss(cls_logits, targets, loss_weights)
            losses[f"s{i}.loss_mask"], losses[f"s{i}.loss_dice"] = mask_losses(masks, targets, loss_weights)
            previous_masks, previous_classes = masks.detach(), cls_logits.detach()
    return losses


def upsample(logits: Tensor) -> Tensor:
    return F.interpolate(logits.float(), scale_factor=2, mode="bilinear", align_corners=False)


def sample(
    previous_masks: Tensor,
    previous_classes: Tensor | None,
    masks: Tensor,
    instances: Sequence[InstanceData],
    weights: CostWeights,
) -> list[MaskSamplingResult]:
    """Match every image on what the stage before predicted, and part its masks (B, N, h, w) into matched and not."""
    results = []
    for i, truth in enumerate(instances):
        classes = None if previous_classes is None else previous_classes[i]
        found = match(previous_masks[i], classes, truth, weights)
        results.append(MaskPseudoSampler().sample(found, InstanceData(masks=masks[i]), truth))
    return results


def match(
    mask_logits: Tensor, cls_logits: Tensor | None, instances: InstanceData, weights: CostWeights
) -> AssignResult:
    """One image's assignment: logits (N, h, w) and (N, K) with its L instances."""
    count = len(instances.labels)
    found = torch.zeros(len(mask_logits), dtype=torch.long, device=mask_logits.device)
    if count:
        cost = mask_cost(mask_logits, instances.masks, weights.mask)
        cost = cost + dice_cost(mask_logits, instances.masks, weights.dice)
        if cls_logits is not None:
            cost = cost + FocalLossCost(weight=weights.cls)(InstanceData(scores=cls_logits), instances)
        kernels, columns = map(torch.from_numpy, linear_sum_assignment(cost.cpu()))
        found[kernels.to(found.device)] = columns.to(found.device) + 1
    return AssignResult(count, found, max_overlaps=None, labels=None)


def dice_cost(mask_logits: Tensor, masks: Tensor, weight: float) -> Tensor:
    """(N, h, w) and (L, h, w) -> (N, L)."""
    probs, masks = mask_logits.sigmoid().flatten(1), masks.flatten(1)
    overlap = torch.einsum("np,lp->nl", probs, masks)
    sizes = ((probs * probs).sum(1) + EPS)[:, None] + ((masks * masks).sum(1) + EPS)[None]
    return -weight * 2 * overlap / sizes


def mask_cost(mask_logits: Tensor, masks: Tensor, weight: float) -> Tensor:
    """(N, h, w) and (L, h, w) -> (N, L)."""
    probs = mask_logits.sigmoid()
    both = torch.einsum("nhw,lhw->nl", probs, masks)
    neither = torch.einsum("nhw,lhw->nl", 1 - probs, 1 - masks)
    return -weight * (both + neither) / masks[0].numel()


def kernel_targets(
    sampled: Sequence[MaskSamplingResult], masks: Tensor, instances: Sequence[InstanceData], num_classes: int
) -> KernelTargets:
    """Targets of all images' kernels, one image after the other."""
    targets = []
    for i, result in enumerate(sampled):
        labels = torch.full((masks.shape[1],), num_classes, device=masks.device)
        label_weights = masks.new_zeros(masks.shape[1], num_classes)
        mask_targets, mask_weights = torch.zeros_like(masks[i]), torch.zeros_like(masks[i])
        labels[result.pos_inds] = instances[i].labels[result.pos_assigned_gt_inds]
        label_weights[result.pos_inds] = 1
        label_weights[result.neg_inds] = 1
        mask_targets[result.pos_inds] = result.pos_gt_masks
        mask_weights[result.pos_inds] = 1
        targets.append(KernelTargets(labels, label_weights, mask_targets, mask_weights))
    return KernelTargets(*map(torch.cat, zip(*targets, strict=True)))


def class_loss(cls_logits: Tensor, targets: KernelTargets, weights: LossWeights) -> Tensor:
    """Focal loss of class logits (B, N, K), per matched kernel."""
    matched = (targets.labels < cls_logits.shape[2]).sum().float().clamp(min=1)
    loss = FocalLoss(loss_weight=weights.cls)
    return loss(cls_logits.flatten(0, 1), targets.labels, targets.label_weights, avg_factor=matched)


def mask_losses(masks: Tensor, targets: KernelTargets, weights: LossWeights) -> tuple[Tensor, Tensor]:
    """Cross-entropy and dice of the matched ones among masks (B, N, h, w)."""
    matched = targets.labels < targets.label_weights.shape[1]
    if not matched.any():
        return masks.sum() * 0, masks.sum() * 0
    logits, truth = masks.flatten(0, 1)[matched], targets.masks[matched]
    cross_entropy = CrossEntropyLoss(use_sigmoid=True, loss_weight=weights.mask)
    return cross_entropy(logits, truth), DiceLoss(loss_weight=weights.dice)(logits, truth)


def semantic_loss(
    seg_logits: Tensor,
    sampled: Sequence[MaskSamplingResult],
    instances: Sequence[InstanceData],
    weights: LossWeights,
) -> Tensor:
    """Focal loss of per-pixel class logits (B, K, h, w), per foreground pixel; a later kernel's instance is on top."""
    num_classes = seg_logits.shape[1]
    maps = []
    for result, truth in zip(sampled, instances, strict=True):
        labels = torch.full(seg_logits.shape[2:], num_classes, device=seg_logits.device)
        matched = truth.labels[result.pos_assigned_gt_inds]
        for i in range(len(matched)):
            labels[result.pos_gt_masks[i].bool()] = matched[i]
        maps.append(labels)
    targets = torch.stack(maps).flatten()
    logits = seg_logits.permute(0, 2, 3, 1).reshape(-1, num_classes)
    foreground = (targets < num_classes).sum().float().clamp(min=1)
    return FocalLoss(loss_weight=weights.seg)(logits, targets, avg_factor=foreground)
