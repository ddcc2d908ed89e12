"""A small K-Net on EfficientNet-Lite0: trains on two CPU cores."""

_base_ = "knet.py"

model = dict(
    data_preprocessor=dict(mean=[127.5] * 3, std=[127.5] * 3),  # what the bundled weights were trained with
    backbone=dict(
        _delete_=True, type="TimmBackbone", model_name="tf_efficientnet_lite0", frozen_stages=1, norm_eval=True
    ),
    neck=dict(in_channels=[24, 40, 112, 320], out_channels=64),
    rpn_head=dict(num_kernels=50, channels=64),
    roi_head=dict(channels=64, ffn_channels=256),
)
