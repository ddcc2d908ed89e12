"""Prompts: the mean of an FPN feature inside the tight box of each proposal (Section 3.3, Eq. 5)."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torchvision.ops import roi_align


class Prompts(NamedTuple):
    """The prompts of a batch; rows from `counts[b]` on are padding."""

    features: Tensor  # float32 (B, L, C)
    counts: Tensor  # int64 (B,)


def box_prompts(feature: Tensor, boxes: Sequence[Tensor], input_width: int) -> Prompts:
    """The mean of the bilinearly interpolated feature over each box (Eq. 5).

    Computed by RoIAlign with one bin, which takes at least one sample per cell: a large box is averaged over its whole
    area, and one smaller than a cell gets the value at its centre.

    Args:
        feature: (B, C, h, w), an FPN level.
        boxes: for each image, (L_b, 4): x1, y1, x2, y2 in pixels of the padded input.
        input_width: width of the padded input, in pixels.
    """
    boxes = [image_boxes.to(feature.device, torch.float32) for image_boxes in boxes]
    counts = list(map(len, boxes))
    scale = feature.shape[-1] / input_width
    means = roi_align(feature.float(), boxes, output_size=1, spatial_scale=scale, aligned=True).flatten(1)
    return Prompts(pad_sequence(means.split(counts), batch_first=True), torch.tensor(counts, device=feature.device))
