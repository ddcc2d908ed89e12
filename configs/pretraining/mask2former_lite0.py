"""The small Mask2Former pre-trained with Saliency Prompt: prompts, kernel supervision, frozen backbone."""

_base_ = "../models/mask2former_lite0.py"

model = dict(
    type="SaliencyPromptMask2Former",
    backbone=dict(frozen_stages=4),
    saliency_prompt=dict(drop_prob=0.05),
)
