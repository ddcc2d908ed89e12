"""K-Net's training losses. Loss maths is in float32 whatever the network ran in."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from mmdet.utils import reduce_mean
from mmengine.dist import get_world_size
from torch import Tensor
from torchvision.ops import sigmoid_focal_loss

from stage2_training.knet.assignment import DICE_EPS, FOCAL_ALPHA, FOCAL_GAMMA, Assignment, CostWeights, assign
from stage2_training.knet.kernel_head import KernelHeadOutput
from stage2_training.knet.targets import InstanceTargets
from stage2_training.knet.update_stage import StageOutput


@dataclass(frozen=True)
class LossWeights:
    """Factors of the losses: classes, mask cross-entropy, mask dice, and the per-pixel classes of M^0's head."""

    cls: float = 2.0
    mask: float = 1.0
    dice: float = 4.0
    seg: float = 1.0


def upsample_masks(mask_logits: Tensor) -> Tensor:
    """(B, N, h, w) at stride 8 -> (B, N, 2h, 2w) at stride 4, where masks are matched and compared."""
    return F.interpolate(mask_logits, scale_factor=2, mode="bilinear", align_corners=False)


def knet_losses(
    initial: KernelHeadOutput,
    stages: Sequence[StageOutput],
    targets: InstanceTargets,
    cost_weights: CostWeights,
    loss_weights: LossWeights,
) -> tuple[dict[str, Tensor], list[Assignment]]:
    """Losses of the initial masks and of every update stage, and every stage's assignment.

    A stage is matched on what the stage before it predicted: stage 0 on the initial masks M^0, without
    class cost, like the initial masks themselves.

    Args:
        initial: output of the kernel head.
        stages: outputs of the S update stages.
        targets: the batch's instances at stride 4.
        cost_weights, loss_weights: factors of the matching cost and of the losses.

    Returns:
        The losses by their official names (`loss_rpn_mask`, ..., `s2.loss_dice`), all scalar and finite
        without instances too; and the S assignments.
    """
    masks = upsample_masks(initial.mask_logits)
    assignment = assign(masks, None, targets, cost_weights)
    mask_loss, dice_loss = matched_mask_losses(masks, targets.masks, assignment)
    losses = {
        "loss_rpn_mask": loss_weights.mask * mask_loss,
        "loss_rpn_dice": loss_weights.dice * dice_loss,
        "loss_rpn_seg": loss_weights.seg * semantic_loss(upsample_masks(initial.seg_logits), targets, assignment),
    }
    assignments = []
    for i, stage in enumerate(stages):
        if i > 0:
            assignment = assign(masks, stages[i - 1].cls_logits, targets, cost_weights)
        assignments.append(assignment)
        masks = upsample_masks(stage.mask_logits)
        mask_loss, dice_loss = matched_mask_losses(masks, targets.masks, assignment)
        losses[f"s{i}.loss_cls"] = loss_weights.cls * kernel_class_loss(stage.cls_logits, targets.labels, assignment)
        losses[f"s{i}.loss_mask"] = loss_weights.mask * mask_loss
        losses[f"s{i}.loss_dice"] = loss_weights.dice * dice_loss
    return losses, assignments


def matched_mask_losses(mask_logits: Tensor, masks: Tensor, assignment: Assignment) -> tuple[Tensor, Tensor]:
    """Binary cross-entropy (mean over pixels) and dice loss, per matched pair (`mean_pairs`).

    Without pairs both are 0 and still hang on the logits, so that every parameter gets a gradient.

    Args:
        mask_logits: (B, N, h, w).
        masks: float32 (B, L, h, w).
        assignment: M pairs.
    """
    logits = mask_logits[assignment.image, assignment.kernel].flatten(1).float()
    targets = masks[assignment.image, assignment.instance].flatten(1)
    pairs = mean_pairs(assignment)
    cross_entropy = F.binary_cross_entropy_with_logits(logits, targets, reduction="sum")
    return cross_entropy / (pairs * logits.shape[1]), dice_losses(logits.sigmoid(), targets).sum() / pairs


def dice_losses(probs: Tensor, targets: Tensor) -> Tensor:
    """1 - dice similarity with squared denominators: (M, P) and (M, P) -> (M,)."""
    overlap = (probs * targets).sum(1)
    sizes = (probs.square().sum(1) + DICE_EPS) + (targets.square().sum(1) + DICE_EPS)
    return 1 - 2 * overlap / sizes


def kernel_class_loss(cls_logits: Tensor, labels: Tensor, assignment: Assignment) -> Tensor:
    """Focal loss of all kernels (B, N, K), per matched pair (`mean_pairs`)."""
    one_hot = torch.zeros_like(cls_logits, dtype=torch.float32)
    one_hot[assignment.image, assignment.kernel, labels[assignment.image, assignment.instance]] = 1
    return _focal_loss(cls_logits, one_hot) / mean_pairs(assignment)


def mean_pairs(assignment: Assignment) -> Tensor:
    """float32 scalar: matched pairs of the batch, see `mean_count`."""
    return mean_count(torch.tensor(len(assignment), device=assignment.image.device))


def mean_count(count: Tensor) -> Tensor:
    """float32 scalar: a count in this process's part of the batch, averaged over processes; in all at least 1.

    DDP averages gradients over processes, so a sum divided by this is divided by the whole batch's count.
    """
    return reduce_mean(count.float()).clamp(min=1 / get_world_size())


def semantic_loss(seg_logits: Tensor, targets: InstanceTargets, assignment: Assignment) -> Tensor:
    """Focal loss of the per-pixel class logits (B, K, h, w), per foreground pixel (`mean_count`)."""
    num_classes = seg_logits.shape[1]
    labels = semantic_map(targets, assignment, num_classes)
    classes = torch.arange(num_classes, device=labels.device)
    one_hot = (labels[:, None] == classes[:, None, None]).float()
    return _focal_loss(seg_logits, one_hot) / mean_count((labels < num_classes).sum())


def semantic_map(targets: InstanceTargets, assignment: Assignment, num_classes: int) -> Tensor:
    """int64 (B, h, w): label of the matched instance that covers any of the pixel, `num_classes` where none does.

    Of several, the one whose kernel has the highest index.
    """
    # One number carries both the kernel, which decides, and the label; 0 stays free for "nothing here".
    rank = torch.zeros_like(targets.labels)
    labels = targets.labels[assignment.image, assignment.instance]
    rank[assignment.image, assignment.instance] = (assignment.kernel + 1) * num_classes + labels
    topmost = ((targets.masks > 0) * rank[:, :, None, None]).amax(dim=1)
    return torch.where(topmost > 0, topmost % num_classes, num_classes)


def _focal_loss(logits: Tensor, targets: Tensor) -> Tensor:
    return sigmoid_focal_loss(logits.float(), targets, FOCAL_ALPHA, FOCAL_GAMMA, reduction="sum")
