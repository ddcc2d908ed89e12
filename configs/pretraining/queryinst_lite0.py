"""The small QueryInst pre-trained with Saliency Prompt: prompts, kernel supervision, frozen backbone."""

_base_ = "../models/queryinst_lite0.py"

model = dict(
    type="SaliencyPromptQueryInst",
    backbone=dict(frozen_stages=4),
    saliency_prompt=dict(drop_prob=0.05),
)
