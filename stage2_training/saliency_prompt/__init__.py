"""Saliency Prompt; importing this package registers its detectors."""

from stage2_training.saliency_prompt.detectors import (
    SaliencyPromptKNet,
    SaliencyPromptMask2Former,
    SaliencyPromptMaskFormer,
    SaliencyPromptQueryInst,
)

__all__ = ["SaliencyPromptKNet", "SaliencyPromptMask2Former", "SaliencyPromptMaskFormer", "SaliencyPromptQueryInst"]
