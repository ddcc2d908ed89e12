"""Prompt-kernel matching, and adding matched prompts to kernels (Section 3.3, Eq. 6-8)."""

import torch
import torch.nn.functional as F
from torch import Tensor

from stage2_training.saliency_prompt.prompts import Prompts


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


def add_prompts(
    kernels: Tensor, prompts: Prompts, index: Tensor, drop_prob: float = 0.0, length: Tensor | None = None
) -> Tensor:
    """Kernels (B, N, C) plus their prompts (Eq. 8). Kernels of images without prompts stay as they are.

    Args:
        kernels: (B, N, C).
        prompts: of the B images, L >= 1 rows.
        index: int64 (B, N), from `match_prompts`.
        drop_prob: probability, for each kernel, that its prompt is dropped.
        length: L2 norm that prompts are scaled to, (N, 1) or (B, N, 1); None: they keep their own.
    """
    added = prompts.features.gather(1, index[:, :, None].expand(-1, -1, prompts.features.shape[2]))
    if length is not None:
        added = F.normalize(added, dim=-1) * length
    kept = torch.rand(index.shape, device=kernels.device) >= drop_prob
    kept &= prompts.counts[:, None] > 0
    return kernels + added * kept[:, :, None]
