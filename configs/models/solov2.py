"""SOLOv2, ResNet-50 (PyTorch style), FPN: a baseline without queries."""

_base_ = ["parts/resnet50.py", "parts/sgd.py"]

model = dict(
    type="SOLOv2",
    neck=dict(type="FPN", in_channels=[256, 512, 1024, 2048], out_channels=256, num_outs=5),
    mask_head=dict(
        type="SOLOV2Head",
        num_classes=80,
        in_channels=256,
        feat_channels=512,
        stacked_convs=4,
        strides=(8, 8, 16, 32, 32),
        scale_ranges=((1, 96), (48, 192), (96, 384), (192, 768), (384, 2048)),
        num_grids=[40, 36, 24, 16, 12],
        pos_scale=0.2,
        mask_feature_head=dict(
            feat_channels=128,
            start_level=0,
            end_level=3,
            out_channels=256,
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

# With several processes: one whose images have no object gives the kernel branch no gradient.
find_unused_parameters = True
