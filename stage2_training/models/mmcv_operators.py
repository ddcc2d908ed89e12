"""MMCV's operators in PyTorch and torchvision, for an MMCV that was installed without its compiled ones.

MMCV (onedl-mmcv 2.3.6) looks for its operators in the module `mmcv._ext`, which its build compiles. `make setup` writes
an `mmcv/_ext.py` that takes everything from here: NMS, RoIAlign, sigmoid focal loss and deformable attention, the ones
that MMDetection's query-based and Mask R-CNN models use, on any device that PyTorch has. Every other operator can be
looked up, as MMCV does when it is imported, and raises an error when it is called.

Signatures are those by which MMCV calls: results of gradients, of RoIAlign and of the focal loss are written into
tensors that it hands over. Imports nothing of MMCV: `mmcv.ops` is not complete yet when it imports this.
"""

from collections.abc import Callable
from typing import Any, NoReturn

import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor


def nms(boxes: Tensor, scores: Tensor, iou_threshold: float, offset: int) -> Tensor:
    """Greedy non-maximum suppression.

    Args:
        boxes: (N, 4), x1, y1, x2, y2 in pixels.
        scores: (N,).
        iou_threshold: a box is dropped whose IoU with a better one that was kept is higher.
        offset: 1 if x2 and y2 are the last pixels inside a box, so that its width is x2 - x1 + 1; otherwise 0.

    Returns:
        Indices (K,) int64 of the boxes that are kept, the best first.
    """
    ends_after = boxes.new_tensor([0, 0, offset, offset])
    return torchvision.ops.nms(boxes.float() + ends_after, scores.float(), iou_threshold)


def roi_align_forward(
    input: Tensor,  # MMCV passes some of these by name
    rois: Tensor,
    output: Tensor,
    argmax_y: Tensor,
    argmax_x: Tensor,
    aligned_height: int,
    aligned_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    pool_mode: int,
    aligned: bool,
) -> None:
    """RoIAlign by averages of features (B, C, h, w) in boxes (R, 5) -> `output` (R, C, height, width).

    Raises:
        RuntimeError: `pool_mode` is 0, the maximum, which torchvision lacks.
    """
    if pool_mode == 0:
        _raise_missing("roi_align with pool_mode='max'")
    size = (aligned_height, aligned_width)
    output.copy_(torchvision.ops.roi_align(input, rois, size, spatial_scale, sampling_ratio, aligned))


def roi_align_backward(
    grad_output: Tensor,
    rois: Tensor,
    argmax_y: Tensor,
    argmax_x: Tensor,
    grad_input: Tensor,
    aligned_height: int,
    aligned_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    pool_mode: int,
    aligned: bool,
) -> None:
    """Gradient (R, C, height, width) of RoIAlign's output -> `grad_input` (B, C, h, w)."""
    size = (aligned_height, aligned_width)
    with torch.enable_grad():  # averages: the gradient is the same for any features
        features = torch.zeros_like(grad_input).requires_grad_()
        output = torchvision.ops.roi_align(features, rois, size, spatial_scale, sampling_ratio, aligned)
        (gradient,) = torch.autograd.grad(output, features, grad_output)
    grad_input.copy_(gradient)


def sigmoid_focal_loss_forward(
    input: Tensor, target: Tensor, weight: Tensor, output: Tensor, gamma: float, alpha: float
) -> None:
    """Focal loss of logits (N, C) and classes (N,) int64 -> `output` (N, C).

    A target of C or more, MMDetection's background, and one below 0 have no class; `weight` (C,), if not empty, weighs
    an object's loss by its class.
    """
    output.copy_(_focal_loss(input, target, weight, gamma, alpha))


def sigmoid_focal_loss_backward(
    input: Tensor, target: Tensor, weight: Tensor, grad_input: Tensor, gamma: float, alpha: float
) -> None:
    """The derivative (N, C) of the focal loss of each logit -> `grad_input`."""
    with torch.enable_grad():
        logits = input.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(_focal_loss(logits, target, weight, gamma, alpha).sum(), logits)
    grad_input.copy_(gradient)


def _focal_loss(logits: Tensor, target: Tensor, weight: Tensor, gamma: float, alpha: float) -> Tensor:
    logits = logits.float()
    is_class = target[:, None] == torch.arange(logits.shape[1], device=logits.device)
    signed = torch.where(is_class, logits, -logits)  # of the answer that would be right
    balance = torch.where(is_class, alpha, 1 - alpha)
    loss = -balance * torch.sigmoid(-signed) ** gamma * F.logsigmoid(signed)
    if weight.numel():
        known = target.clamp(0, len(weight) - 1)
        loss = loss * torch.where(target < len(weight), weight[known], weight.new_tensor(1))[:, None]
    return loss


def ms_deform_attn_forward(
    value: Tensor,
    spatial_shapes: Tensor,
    level_start_index: Tensor,
    sampling_locations: Tensor,
    attention_weights: Tensor,
    im2col_step: int,
) -> Tensor:
    """Multi-scale deformable attention (Deformable DETR, Eq. 3).

    Args:
        value: (B, S, M, d), the cells of all levels, one level after the other; M heads.
        spatial_shapes: (L, 2) int64, height and width of each level.
        level_start_index: where each level begins; the shapes say it, too.
        sampling_locations: (B, Q, M, L, P, 2), x and y in 0..1.
        attention_weights: (B, Q, M, L, P).
        im2col_step: images per step of the compiled operator; of no use here.

    Returns:
        (B, Q, M d).
    """
    batch, _, heads, length = value.shape
    queries, levels, points = sampling_locations.shape[1], *sampling_locations.shape[3:5]
    # (B, M, ...) is one dimension from here on.
    grids = (2 * sampling_locations - 1).transpose(1, 2).reshape(batch * heads, queries, levels, points, 2)
    weights = attention_weights.transpose(1, 2).reshape(batch * heads, 1, queries, levels * points)
    maps = value.permute(0, 2, 3, 1).reshape(batch * heads, length, -1)
    shapes = spatial_shapes.tolist()
    samples = [
        F.grid_sample(level.unflatten(-1, shape), grids[:, :, number], align_corners=False)
        for number, (level, shape) in enumerate(
            zip(maps.split([h * w for h, w in shapes], dim=-1), shapes, strict=True)
        )
    ]
    return (torch.cat(samples, dim=-1) * weights).sum(dim=-1).view(batch, heads * length, queries).transpose(1, 2)


def ms_deform_attn_backward(
    value: Tensor,
    spatial_shapes: Tensor,
    level_start_index: Tensor,
    sampling_locations: Tensor,
    attention_weights: Tensor,
    grad_output: Tensor,
    grad_value: Tensor,
    grad_sampling_loc: Tensor,
    grad_attn_weight: Tensor,
    im2col_step: int,
) -> None:
    """Gradient (B, Q, M d) of the attention's output -> the three gradients, in place."""
    with torch.enable_grad():
        value, places, weights = (
            tensor.detach().requires_grad_() for tensor in (value, sampling_locations, attention_weights)
        )
        output = ms_deform_attn_forward(value, spatial_shapes, level_start_index, places, weights, im2col_step)
        gradients = torch.autograd.grad(output, (value, places, weights), grad_output)
    for place, gradient in zip((grad_value, grad_sampling_loc, grad_attn_weight), gradients, strict=True):
        place.copy_(gradient)


def __getattr__(name: str) -> Callable[..., NoReturn]:
    if name.startswith("__"):
        raise AttributeError(name)

    def missing(*args: Any, **kwargs: Any) -> NoReturn:
        _raise_missing(name)

    return missing


def _raise_missing(name: str) -> NoReturn:
    raise RuntimeError(
        f"MMCV's operator {name} has no counterpart in PyTorch here; `make setup OPS=compiled` compiles MMCV's own "
        f"(a quarter of an hour or more, with a C++ compiler and, for a GPU, nvcc)"
    )
