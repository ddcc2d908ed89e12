"""The small SOLOv2 pre-trained as FreeSOLO, but with a frozen backbone: a step takes half the time."""

_base_ = "../models/solov2_lite0.py"

model = dict(
    type="SaliencyPromptSOLOv2",
    backbone=dict(frozen_stages=4),
    mask_head=dict(type="WeakSOLOV2Head", loss_mask=dict(_delete_=True, type="WeakMaskLoss")),
    saliency_prompt=dict(matching="none", kernel_loss="reconstruct", kernel_loss_weight=4.0),
)
