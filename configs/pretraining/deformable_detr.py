"""Deformable DETR pre-trained as DETReg: no prompts, regression of seed features, frozen backbone."""

_base_ = "../models/deformable_detr.py"

model = dict(
    type="SaliencyPromptDeformableDETR",
    backbone=dict(frozen_stages=4),
    saliency_prompt=dict(matching="none", kernel_loss="regress"),
)
train_dataloader = dict(dataset=dict(max_proposals=30))
