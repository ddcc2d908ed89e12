"""Saliency Prompt; importing this package registers its detectors."""

from stage2_training.saliency_prompt.knet import SaliencyPromptKNet

__all__ = ["SaliencyPromptKNet"]
