"""A small SOLOv2 on EfficientNet-Lite0: trains on two CPU cores."""

_base_ = "solov2.py"

model = dict(
    data_preprocessor=dict(mean=[127.5] * 3, std=[127.5] * 3),  # what the bundled weights were trained with
    backbone=dict(
        _delete_=True, type="TimmBackbone", model_name="tf_efficientnet_lite0", frozen_stages=1, norm_eval=True
    ),
    neck=dict(in_channels=[24, 40, 112, 320], out_channels=64),
    mask_head=dict(
        in_channels=64,
        feat_channels=64,
        stacked_convs=2,
        scale_ranges=((1, 32), (16, 64), (32, 128), (64, 256), (128, 512)),  # for images of 256 px
        num_grids=[20, 18, 12, 8, 6],
        mask_feature_head=dict(feat_channels=64, out_channels=64),
    ),
)

# The paper's rate and free gradients diverge on small batches.
optim_wrapper = dict(optimizer=dict(lr=0.005), clip_grad=dict(_delete_=True, max_norm=5.0, norm_type=2))
