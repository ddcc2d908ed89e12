"""Saliency Prompt; importing this package registers its detectors."""

from stage2_training.saliency_prompt.knet import SaliencyPromptKNet
from stage2_training.saliency_prompt.mask2former import SaliencyPromptMask2Former
from stage2_training.saliency_prompt.maskformer import SaliencyPromptMaskFormer
from stage2_training.saliency_prompt.queryinst import SaliencyPromptQueryInst

__all__ = ["SaliencyPromptKNet", "SaliencyPromptMask2Former", "SaliencyPromptMaskFormer", "SaliencyPromptQueryInst"]
