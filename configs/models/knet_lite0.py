"""A small K-Net on EfficientNet-Lite0: trains on two CPU cores."""

_base_ = ["knet.py", "parts/lite0.py"]

model = dict(
    data_preprocessor=_base_.lite0.data_preprocessor,
    backbone=dict(_delete_=True, **_base_.lite0.backbone),
    neck=dict(in_channels=_base_.lite0.channels, out_channels=64),
    rpn_head=dict(num_kernels=50, channels=64, mask_stride=4),
    roi_head=dict(channels=64, ffn_channels=256),
)
