"""MaskFormer pre-trained with Saliency Prompt: prompts, kernel supervision, frozen backbone."""

_base_ = "../models/maskformer.py"

model = dict(
    type="SaliencyPromptMaskFormer",
    backbone=dict(frozen_stages=4),
    saliency_prompt=dict(),
)
