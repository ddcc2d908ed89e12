"""The small DETR pre-trained as UP-DETR: random boxes as prompts for groups of queries, frozen backbone."""

_base_ = "../models/detr_lite0.py"

model = dict(
    type="SaliencyPromptDETR",
    backbone=dict(frozen_stages=4),
    saliency_prompt=dict(
        matching="random",
        groups=True,
        drop_prob=0.1,
        kernel_loss="reconstruct",
        kernel_target="prompt",
        kernel_loss_weight=2.0,
    ),
)
train_dataloader = dict(dataset=dict(max_proposals=10, choose="random"))
