"""Prompts, prompt-kernel matching, and adding matched prompts to kernels (Section 3.3, Eq. 5-8)."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torchvision.ops import roi_align


class Prompts(NamedTuple):
    """The prompts of a batch; rows from `counts[b]` on are padding."""

    features: Tensor  # float32 (B, L, C)
    counts: Tensor  # int64 (B,)
    image_means: Tensor  # float32 (B, C), mean of the map over each image without its padding


def box_prompts(
    feature: Tensor,
    boxes: Sequence[Tensor],
    image_sizes: Sequence[tuple[int, int]],
    input_width: int,
    center: bool = False,
    offset: int = 0,
) -> Prompts:
    """The mean of the bilinearly interpolated feature over each box (Eq. 5).

    Computed by RoIAlign with one bin, which takes at least one sample per cell: a large box is averaged over its whole
    area, and one smaller than a cell gets the value at its centre.

    Args:
        feature: (B, C, h, w).
        boxes: for each image, (L_b, 4): x1, y1, x2, y2 in pixels of the padded input.
        image_sizes: for each image, height and width in pixels without padding.
        input_width: width of the padded input, in pixels.
        center: subtract each image's mean from its prompts.
        offset: how far down and to the right of their centres the feature's cells look, in pixels of the input.
    """
    counts = list(map(len, boxes))
    whole = [[0, 0, width, height] for height, width in image_sizes]
    regions = [
        torch.cat([image_boxes.to(feature.device, torch.float32), feature.new_tensor([image], dtype=torch.float32)])
        - offset
        for image_boxes, image in zip(boxes, whole, strict=True)
    ]
    scale = feature.shape[-1] / input_width
    means = roi_align(feature.float(), regions, output_size=1, spatial_scale=scale, aligned=True).flatten(1)
    by_image = means.split([count + 1 for count in counts])
    image_means = torch.stack([rows[-1] for rows in by_image])
    features = pad_sequence([rows[:-1] - rows[-1:] if center else rows[:-1] for rows in by_image], batch_first=True)
    return Prompts(features, torch.tensor(counts, device=feature.device), image_means)


@torch.no_grad()
def match_prompts(kernels: Tensor, prompts: Prompts, matching: str) -> Tensor:
    """The index of each kernel's prompt: int64 (B, N); arbitrary for images that have no prompt.

    Args:
        kernels: (N, C), the same for every image, or (B, N, C).
        prompts: of the B images, L >= 1 rows.
        matching: `cosine`: the prompt most similar to the kernel (Eq. 6, 7); `sequential`: prompts in
            order, repeated; `random`: the sequential order shuffled (UP-DETR's "shuffle").

    Raises:
        ValueError: unknown `matching`.
    """
    images, num_kernels = len(prompts.counts), kernels.shape[-2]
    if matching == "cosine":
        similarity = cosine_similarity(kernels.expand(images, -1, -1), prompts.features)
        padding = torch.arange(similarity.shape[2], device=similarity.device) >= prompts.counts[:, None]
        return similarity.masked_fill(padding[:, None, :], -torch.inf).argmax(dim=2)
    order = torch.arange(num_kernels, device=kernels.device).expand(images, -1)
    if matching == "random":
        order = torch.rand(images, num_kernels, device=kernels.device).argsort(dim=1)
    elif matching != "sequential":
        raise ValueError(f"unknown matching {matching!r}")
    return order % prompts.counts[:, None].clamp(min=1)


def cosine_similarity(kernels: Tensor, prompts: Tensor) -> Tensor:
    """E (Eq. 6): kernels (B, N, C) and prompts (B, L, C) -> float32 (B, N, L)."""
    with torch.autocast(kernels.device.type, enabled=False):
        return F.normalize(kernels.float(), dim=-1) @ F.normalize(prompts.float(), dim=-1).mT


def gather_prompts(prompts: Prompts, index: Tensor) -> Tensor:
    """Each kernel's prompt: index (B, N), from `match_prompts`, -> (B, N, C)."""
    return prompts.features.gather(1, index[:, :, None].expand(-1, -1, prompts.features.shape[2]))
