"""SOLOv2 pre-trained as FreeSOLO: weak mask losses and semantic embeddings of grid cells; the backbone learns, too."""

_base_ = "../models/solov2.py"

model = dict(
    type="SaliencyPromptSOLOv2",
    backbone=dict(frozen_stages=-1),
    mask_head=dict(type="WeakSOLOV2Head", loss_mask=dict(_delete_=True, type="WeakMaskLoss")),
    saliency_prompt=dict(matching="none", kernel_loss="reconstruct", kernel_loss_weight=4.0),
)
optim_wrapper = dict(optimizer=dict(lr=0.006))  # 0.001 for 16 images
