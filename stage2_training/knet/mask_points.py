"""Masks compared at sampled points in place of every pixel: losses as in PointRend, costs as in Mask2Former.

Points are (x, y) in [0, 1] of a map's width and height. Between pixel centres maps are interpolated, so a map at
stride 8 is read at a point as if it had been upsampled.
"""

from dataclasses import dataclass

import torch
from mmcv.ops import point_sample
from mmdet.models.utils import get_uncertain_point_coords_with_randomness
from torch import Tensor

from stage1_proposals.errors import UserError

OVERSAMPLING = 3.0  # candidates per point, of which the most uncertain are taken
IMPORTANCE = 0.75  # the share of points taken so; the others are anywhere


@dataclass(frozen=True)
class PointSampling:
    """How many points of a mask are compared; None: all pixels, as in the paper.

    Args:
        mask_points: for the mask losses, in each matched pair its own, most of them where the mask is uncertain.
        cost_points: for the matching cost, in each image the same for all kernels and instances, anywhere.

    Raises:
        UserError: a number of points that is none.
    """

    mask_points: int | None = None
    cost_points: int | None = None

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value is not None and (type(value) is not int or value < 1):
                raise UserError(f"train_cfg.{name} {value!r}: use None or an integer from 1 up")


def uncertain_points(mask_logits: Tensor, count: int) -> Tensor:
    """Mask logits (M, h, w) -> `count` points of each, float32 (M, count, 2)."""
    with torch.no_grad():
        return get_uncertain_point_coords_with_randomness(
            mask_logits[:, None].float(), None, count, OVERSAMPLING, IMPORTANCE
        )


def values_at(maps: Tensor, points: Tensor) -> Tensor:
    """Maps (B, N, h, w) at points (B, P, 2), the same for the N maps of an image: float32 (B, N, P)."""
    return point_sample(maps.float(), points, padding_mode="border")
