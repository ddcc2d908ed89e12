"""A small K-Net on EfficientNet-Lite0: trains on two CPU cores."""

model = dict(
    type="KNet",
    data_preprocessor=dict(
        type="DetDataPreprocessor",
        mean=[127.5, 127.5, 127.5],  # what the bundled weights were trained with
        std=[127.5, 127.5, 127.5],
        bgr_to_rgb=False,  # LoadPhoto yields RGB
        pad_mask=True,
        pad_size_divisor=32,
    ),
    backbone=dict(type="TimmBackbone", model_name="tf_efficientnet_lite0", frozen_stages=1, norm_eval=True),
    neck=dict(type="FPN", in_channels=[24, 40, 112, 320], out_channels=64, num_outs=4),
    rpn_head=dict(type="KernelHead", num_kernels=50, num_classes=80, channels=64),
    roi_head=dict(
        type="KernelIterHead", num_classes=80, num_stages=3, channels=64, num_heads=8, ffn_channels=256, dropout=0.0
    ),
    train_cfg=dict(
        cost_weights=dict(cls=2.0, dice=4.0, mask=1.0), loss_weights=dict(cls=2.0, mask=1.0, dice=4.0, seg=1.0)
    ),
    test_cfg=dict(max_per_img=100, mask_threshold=0.5),
)

# In pre-training the backbone is frozen whole.
pretraining = dict(backbone=dict(frozen_stages=4))
