"""Group features: what the image shows inside each kernel's mask."""

import torch
from torch import Tensor


def group_features(features: Tensor, mask_logits: Tensor) -> Tensor:
    """Sum of the features over the pixels inside each mask, `sigmoid(mask_logits) > 0.5`.

    Sums run over thousands of pixels, so they are taken in float32 under any autocast.

    Args:
        features: (B, C, H, W).
        mask_logits: (B, N, H, W). No gradient flows into the hard masks.

    Returns:
        float32 (B, N, C).
    """
    with torch.autocast(features.device.type, enabled=False):
        inside = (mask_logits > 0).float()
        return torch.einsum("bnhw,bchw->bnc", inside, features.float())
