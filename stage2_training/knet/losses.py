"""K-Net's training losses, computed in float32 also under autocast."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from mmcv.ops import point_sample
from mmdet.models.utils import get_uncertain_point_coords_with_randomness
from torch import Tensor
from torchvision.ops import sigmoid_focal_loss

from stage1_proposals.common.errors import UserError
from stage2_training.knet.assignment import (
    DICE_EPS,
    FOCAL_ALPHA,
    FOCAL_GAMMA,
    Assignment,
    CostWeights,
    InstanceTargets,
    assign,
    mean_count,
)
from stage2_training.knet.heads import KernelHeadOutput, StageOutput

OVERSAMPLING = 3.0  # candidates per point, among which the most uncertain are chosen
IMPORTANCE = 0.75  # fraction of points chosen so; the others are uniform


@dataclass(frozen=True)
class PointSampling:
    """At how many points masks are compared; None: at all pixels, as in the paper.

    Args:
        mask_points: in the mask losses, drawn for each matched pair, most of them where the mask is uncertain.
        cost_points: in the matching cost, drawn uniformly for each image, the same for all kernels and instances.

    Raises:
        UserError: a number of points that is not a positive integer.
    """

    mask_points: int | None = None
    cost_points: int | None = None

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value is not None and (type(value) is not int or value < 1):
                raise UserError(f"train_cfg.{name} {value!r}: use None or an integer from 1 up")


ALL_PIXELS = PointSampling()


@dataclass(frozen=True)
class LossWeights:
    """Weights of the losses: kernels' classes, mask cross-entropy, mask dice, and M^0's per-pixel classes."""

    cls: float = 2.0
    mask: float = 1.0
    dice: float = 4.0
    seg: float = 1.0


def knet_losses(
    initial: KernelHeadOutput,
    stages: Sequence[StageOutput],
    targets: InstanceTargets,
    cost_weights: CostWeights,
    loss_weights: LossWeights,
    points: PointSampling = ALL_PIXELS,
) -> tuple[dict[str, Tensor], list[Assignment]]:
    """The losses of the initial masks M^0 and of every update stage, and every stage's assignment.

    A stage is matched on the predictions of the previous one; stage 0 on M^0, without class cost, like M^0 itself.

    Args:
        initial: output of the kernel head.
        stages: outputs of the S update stages.
        targets: the batch's instances, at twice the size of the masks.
        cost_weights, loss_weights: weights of the matching cost and of the losses.
        points: where masks are compared.

    Returns:
        The losses by their official names (`loss_rpn_mask`, ..., `s2.loss_dice`), scalars that are finite also without
        instances; and the S assignments.
    """
    mask_logits: Tensor = initial.mask_logits
    cls_logits: Tensor | None = None
    assignment = match(mask_logits, cls_logits, targets, cost_weights, points)
    pairs = matched_masks(mask_logits, targets.masks, assignment, points)
    mask_loss, dice_loss = matched_mask_losses(*pairs, assignment)
    losses = {
        "loss_rpn_mask": loss_weights.mask * mask_loss,
        "loss_rpn_dice": loss_weights.dice * dice_loss,
        "loss_rpn_seg": loss_weights.seg * semantic_loss(upsample_masks(initial.seg_logits), targets, assignment),
    }
    assignments = []
    for i, stage in enumerate(stages):
        if i > 0:
            assignment = match(mask_logits, cls_logits, targets, cost_weights, points)
        assignments.append(assignment)
        cls_logits, mask_logits, _ = stage
        pairs = matched_masks(mask_logits, targets.masks, assignment, points)
        mask_loss, dice_loss = matched_mask_losses(*pairs, assignment)
        losses[f"s{i}.loss_cls"] = loss_weights.cls * kernel_class_loss(stage.cls_logits, targets.labels, assignment)
        losses[f"s{i}.loss_mask"] = loss_weights.mask * mask_loss
        losses[f"s{i}.loss_dice"] = loss_weights.dice * dice_loss
    return losses, assignments


@torch.no_grad()
def match(
    mask_logits: Tensor,
    cls_logits: Tensor | None,
    targets: InstanceTargets,
    weights: CostWeights,
    points: PointSampling = ALL_PIXELS,
) -> Assignment:
    """`assign` for masks (B, N, h, w), at all pixels of the targets or at points."""
    if points.cost_points is None:
        return assign(upsample_masks(mask_logits.detach()), cls_logits, targets, weights)
    coordinates = torch.rand(len(mask_logits), points.cost_points, 2, device=mask_logits.device)
    sampled = targets._replace(masks=values_at(targets.masks, coordinates)[..., None])
    return assign(values_at(mask_logits, coordinates)[..., None], cls_logits, sampled, weights)


def matched_masks(
    mask_logits: Tensor, masks: Tensor, assignment: Assignment, points: PointSampling = ALL_PIXELS
) -> tuple[Tensor, Tensor]:
    """Mask logits and targets of the matched pairs, both float32 (M, P): of P points, or of all P = 4hw pixels.

    Only matched masks are upsampled with gradients: a fifth of all, for 20 instances and 100 kernels.

    Args:
        mask_logits: (B, N, h, w).
        masks: float32 (B, L, 2h, 2w).
        assignment: M pairs.
        points: where masks are compared.
    """
    logits, targets = mask_logits[assignment.image, assignment.kernel], masks[assignment.image, assignment.instance]
    if points.mask_points is None:
        return upsample_masks(logits[:, None]).flatten(1), targets.flatten(1)
    coordinates = uncertain_points(logits, points.mask_points)
    return values_at(logits[:, None], coordinates)[:, 0], values_at(targets[:, None], coordinates)[:, 0]


def upsample_masks(mask_logits: Tensor) -> Tensor:
    """(B, N, h, w) -> float32 (B, N, 2h, 2w): the size at which masks are matched and supervised."""
    mask_logits = mask_logits.float()
    if not mask_logits.requires_grad:
        return F.interpolate(mask_logits, scale_factor=2, mode="bilinear", align_corners=False)
    # The same as two matrix products: on a CPU, the backward pass of an interpolation takes three times as long.
    rows, columns = (_doubling(length, mask_logits.device) for length in mask_logits.shape[-2:])
    with torch.autocast(mask_logits.device.type, enabled=False):
        return rows @ (mask_logits @ columns.mT)


def _doubling(length: int, device: torch.device) -> Tensor:
    """(2 length, length): the weights of linear interpolation by a factor of 2."""
    return F.interpolate(torch.eye(length, device=device)[None], scale_factor=2, mode="linear")[0].mT


def uncertain_points(mask_logits: Tensor, count: int) -> Tensor:
    """Mask logits (M, h, w) -> `count` points in each, x and y in [0, 1]: float32 (M, count, 2)."""
    with torch.no_grad():
        return get_uncertain_point_coords_with_randomness(
            mask_logits[:, None].float(), None, count, OVERSAMPLING, IMPORTANCE
        )


def values_at(maps: Tensor, points: Tensor) -> Tensor:
    """Maps (B, N, h, w) at points (B, P, 2), the same for the N maps of an image: float32 (B, N, P)."""
    return point_sample(maps.float(), points, padding_mode="border")


def matched_mask_losses(logits: Tensor, targets: Tensor, assignment: Assignment) -> tuple[Tensor, Tensor]:
    """Binary cross-entropy (mean over pixels or points) and dice loss, per matched pair (`Assignment.mean_pairs`).

    Without pairs both are 0 but keep the graph, so that every parameter gets a gradient.

    Args:
        logits, targets: (M, P), of `matched_masks`.
        assignment: M pairs.
    """
    pairs = assignment.mean_pairs
    cross_entropy = F.binary_cross_entropy_with_logits(logits, targets, reduction="sum")
    return cross_entropy / (pairs * logits.shape[1]), dice_losses(logits.sigmoid(), targets).sum() / pairs


def dice_losses(probs: Tensor, targets: Tensor) -> Tensor:
    """1 - dice similarity with squared denominators: (M, P) and (M, P) -> (M,)."""
    overlap = (probs * targets).sum(1)
    sizes = (probs.square().sum(1) + DICE_EPS) + (targets.square().sum(1) + DICE_EPS)
    return 1 - 2 * overlap / sizes


def kernel_class_loss(cls_logits: Tensor, labels: Tensor, assignment: Assignment) -> Tensor:
    """Focal loss of all kernels (B, N, K), per matched pair (`Assignment.mean_pairs`)."""
    one_hot = torch.zeros_like(cls_logits, dtype=torch.float32)
    classes = labels[assignment.image, assignment.instance]
    # A one that is on the device: the device would wait for Python's.
    one_hot[assignment.image, assignment.kernel, classes] = one_hot.new_ones(())
    return _focal_loss(cls_logits, one_hot) / assignment.mean_pairs


def semantic_loss(seg_logits: Tensor, targets: InstanceTargets, assignment: Assignment) -> Tensor:
    """Focal loss of the per-pixel class logits (B, K, h, w), per foreground pixel (`mean_count`)."""
    num_classes = seg_logits.shape[1]
    labels = semantic_map(targets, assignment, num_classes)
    return dense_focal_loss(seg_logits, labels) / mean_count((labels < num_classes).sum())


def semantic_map(targets: InstanceTargets, assignment: Assignment, num_classes: int) -> Tensor:
    """int64 (B, h, w): label of the matched instance that covers any part of the pixel, `num_classes` where none does.

    Among several, the one whose kernel has the highest index counts.
    """
    # One number encodes both the kernel, which decides, and the label; 0 means that no instance covers the pixel.
    rank = torch.zeros_like(targets.labels, dtype=torch.int32)
    labels = targets.labels[assignment.image, assignment.instance]
    rank[assignment.image, assignment.instance] = ((assignment.kernel + 1) * num_classes + labels).int()
    topmost = ((targets.masks > 0) * rank[:, :, None, None]).amax(dim=1).long()
    return torch.where(topmost > 0, topmost % num_classes, num_classes)


def dense_focal_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Sum of the focal losses of class logits (B, K, h, w) for labels (B, h, w), where K means no class.

    Nearly every logit is a negative. So all are counted as negatives, without one-hot targets, and those of the labels
    are corrected.
    """
    logits = logits.float()
    num_classes = logits.shape[1]
    labelled = logits.gather(1, labels[:, None].clamp(max=num_classes - 1))
    correction = FOCAL_ALPHA * (-labelled).sigmoid() ** FOCAL_GAMMA * F.softplus(-labelled) - _negative_loss(labelled)
    return _negative_loss(logits).sum() + (correction * (labels < num_classes)[:, None]).sum()


def _negative_loss(logits: Tensor) -> Tensor:
    return (1 - FOCAL_ALPHA) * logits.sigmoid() ** FOCAL_GAMMA * F.softplus(logits)


def _focal_loss(logits: Tensor, targets: Tensor) -> Tensor:
    return sigmoid_focal_loss(logits.float(), targets, FOCAL_ALPHA, FOCAL_GAMMA, reduction="sum")
