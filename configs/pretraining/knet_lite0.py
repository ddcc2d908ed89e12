"""The small K-Net pre-trained with Saliency Prompt: prompts, kernel supervision, frozen backbone."""

_base_ = "../models/knet_lite0.py"

model = dict(
    type="SaliencyPromptKNet",
    backbone=dict(frozen_stages=4),
    saliency_prompt=dict(rescale=True),
)
