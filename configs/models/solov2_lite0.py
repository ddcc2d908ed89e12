"""A small SOLOv2 on EfficientNet-Lite0: trains on two CPU cores."""

model = dict(
    type="SOLOv2",
    data_preprocessor=dict(
        type="DetDataPreprocessor",
        mean=[127.5, 127.5, 127.5],  # what the bundled weights were trained with
        std=[127.5, 127.5, 127.5],
        bgr_to_rgb=False,  # LoadPhoto yields RGB
        pad_mask=True,
        pad_size_divisor=32,
    ),
    backbone=dict(type="TimmBackbone", model_name="tf_efficientnet_lite0", frozen_stages=1, norm_eval=True),
    neck=dict(type="FPN", in_channels=[24, 40, 112, 320], out_channels=64, num_outs=5),
    mask_head=dict(
        type="SOLOV2Head",
        num_classes=80,
        in_channels=64,
        feat_channels=64,
        stacked_convs=2,
        strides=(8, 8, 16, 32, 32),
        scale_ranges=((1, 32), (16, 64), (32, 128), (64, 256), (128, 512)),  # for photos of 256 px
        num_grids=[20, 18, 12, 8, 6],
        pos_scale=0.2,
        mask_feature_head=dict(
            feat_channels=64,
            start_level=0,
            end_level=3,
            out_channels=64,
            mask_stride=4,
            norm_cfg=dict(type="GN", num_groups=32),
        ),
        loss_mask=dict(type="DiceLoss", use_sigmoid=True, loss_weight=3.0),
        loss_cls=dict(type="Float32FocalLoss", use_sigmoid=True, gamma=2.0, alpha=0.25, loss_weight=1.0),
        norm_cfg=dict(type="GN", num_groups=32),
    ),
    test_cfg=dict(
        nms_pre=500,
        score_thr=0.1,
        mask_thr=0.5,
        filter_thr=0.05,
        kernel="gaussian",
        sigma=2.0,
        max_per_img=100,
    ),
)

# CNNs are trained with SGD, the backbone like the rest; the paper's rate and free gradients diverge on small batches.
optim_wrapper = dict(
    optimizer=dict(_delete_=True, type="SGD", lr=0.005, momentum=0.9, weight_decay=1e-4),
    paramwise_cfg=None,
    clip_grad=dict(max_norm=5.0, norm_type=2),
)

# Pre-trained on pseudo labels (without prompts, which need queries), the backbone is frozen whole.
pretraining = dict(backbone=dict(frozen_stages=4))

# On several processes: where one has no object, its branch for kernels gets no gradient.
find_unused_parameters = True
