"""A small SOLOv2 on EfficientNet-Lite0: trains on two CPU cores."""

_base_ = ["solov2.py", "parts/lite0.py"]

model = dict(
    data_preprocessor=_base_.lite0.data_preprocessor,
    backbone=dict(_delete_=True, **_base_.lite0.backbone),
    neck=dict(in_channels=_base_.lite0.channels, out_channels=64),
    mask_head=dict(
        in_channels=64,
        feat_channels=64,
        stacked_convs=2,
        scale_ranges=((1, 32), (16, 64), (32, 128), (64, 256), (128, 512)),  # for images of 256 px
        num_grids=[20, 18, 12, 8, 6],
        mask_feature_head=dict(feat_channels=64, out_channels=64),
    ),
)

# The paper's learning rate and unclipped gradients diverge on small batches.
optim_wrapper = dict(optimizer=dict(lr=0.005), clip_grad=dict(_delete_=True, max_norm=5.0, norm_type=2))
