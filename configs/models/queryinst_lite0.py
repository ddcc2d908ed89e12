"""A small QueryInst on EfficientNet-Lite0: trains on two CPU cores."""

_base_ = "queryinst.py"  # whose lists, of stages, can only be exchanged whole

model = dict(
    data_preprocessor=dict(mean=[127.5] * 3, std=[127.5] * 3),  # what the bundled weights were trained with
    backbone=dict(
        _delete_=True, type="TimmBackbone", model_name="tf_efficientnet_lite0", frozen_stages=1, norm_eval=True
    ),
    neck=dict(in_channels=[24, 40, 112, 320], out_channels=64),
    rpn_head=dict(num_proposals=50, proposal_feature_channel=64),
    roi_head=dict(
        num_stages=3,
        stage_loss_weights=[1.0] * 3,
        proposal_feature_channel=64,
        bbox_roi_extractor=dict(roi_layer=dict(sampling_ratio=1), out_channels=64),
        mask_roi_extractor=dict(roi_layer=dict(sampling_ratio=1), out_channels=64),
        bbox_head=[
            dict(
                type="DIIHead",
                num_classes=80,
                num_ffn_fcs=2,
                num_heads=8,
                num_cls_fcs=1,
                num_reg_fcs=1,
                feedforward_channels=256,
                in_channels=64,
                dropout=0.0,
                ffn_act_cfg=dict(type="ReLU", inplace=True),
                dynamic_conv_cfg=dict(
                    type="DynamicConv",
                    in_channels=64,
                    feat_channels=16,
                    out_channels=64,
                    input_feat_shape=7,
                    act_cfg=dict(type="ReLU", inplace=True),
                    norm_cfg=dict(type="LN"),
                ),
                bbox_coder=dict(
                    type="DeltaXYWHBBoxCoder",
                    clip_border=False,
                    target_means=[0.0, 0.0, 0.0, 0.0],
                    target_stds=[0.5, 0.5, 1.0, 1.0],
                ),
                loss_cls=dict(type="Float32FocalLoss", use_sigmoid=True, gamma=2.0, alpha=0.25, loss_weight=2.0),
                loss_bbox=dict(type="L1Loss", loss_weight=5.0),
                loss_iou=dict(type="GIoULoss", loss_weight=2.0),
            )
        ]
        * 3,
        mask_head=[
            dict(
                type="BoundedDynamicMaskHead",
                num_convs=1,
                roi_feat_size=14,
                in_channels=64,
                conv_out_channels=64,
                num_classes=80,
                norm_cfg=dict(type="GN", num_groups=32),  # a batch may have no instance, and then no statistics
                upsample_cfg=dict(type="deconv", scale_factor=2),
                dynamic_conv_cfg=dict(
                    type="DynamicConv",
                    in_channels=64,
                    feat_channels=16,
                    out_channels=64,
                    input_feat_shape=14,
                    with_proj=False,
                    act_cfg=dict(type="ReLU", inplace=True),
                    norm_cfg=dict(type="LN"),
                ),
                loss_mask=dict(type="DiceLoss", loss_weight=8.0, use_sigmoid=False, activate=False, eps=1e-5),
            )
        ]
        * 3,
    ),
    train_cfg=dict(
        rcnn=[
            dict(
                assigner=dict(
                    type="HungarianAssigner",
                    match_costs=[
                        dict(type="FocalLossCost", weight=2.0),
                        dict(type="BBoxL1Cost", weight=5.0, box_format="xyxy"),
                        dict(type="IoUCost", iou_mode="giou", weight=2.0),
                    ],
                ),
                sampler=dict(type="PseudoSampler"),
                pos_weight=1,
                mask_size=28,
            )
        ]
        * 3,
    ),
    test_cfg=dict(rcnn=dict(max_per_img=50)),
)
