"""QueryInst, ResNet-50 (PyTorch style), FPN, 6 stages, 100 proposals."""

_base_ = "parts/resnet50.py"

model = dict(
    type="QueryInst",
    neck=dict(type="FPN", in_channels=[256, 512, 1024, 2048], out_channels=256, num_outs=4),
    rpn_head=dict(type="EmbeddingRPNHead", num_proposals=100, proposal_feature_channel=256),
    roi_head=dict(
        type="UniqueRoIHead",
        num_stages=6,
        stage_loss_weights=[1.0] * 6,
        proposal_feature_channel=256,
        bbox_roi_extractor=dict(
            type="Float32RoIExtractor",
            roi_layer=dict(type="RoIAlign", output_size=7, sampling_ratio=2),
            out_channels=256,
            featmap_strides=[4, 8, 16, 32],
        ),
        mask_roi_extractor=dict(
            type="Float32RoIExtractor",
            roi_layer=dict(type="RoIAlign", output_size=14, sampling_ratio=2),
            out_channels=256,
            featmap_strides=[4, 8, 16, 32],
        ),
        bbox_head=dict(  # of each stage
            type="DIIHead",
            num_classes=80,
            num_ffn_fcs=2,
            num_heads=8,
            num_cls_fcs=1,
            num_reg_fcs=3,
            feedforward_channels=2048,
            in_channels=256,
            dropout=0.0,
            ffn_act_cfg=dict(type="ReLU", inplace=True),
            dynamic_conv_cfg=dict(
                type="DynamicConv",
                in_channels=256,
                feat_channels=64,
                out_channels=256,
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
        ),
        mask_head=dict(  # of each stage
            type="BoundedDynamicMaskHead",
            num_convs=4,
            roi_feat_size=14,
            in_channels=256,
            conv_out_channels=256,
            num_classes=80,
            norm_cfg=dict(type="GN", num_groups=32),  # batch statistics do not exist in a batch without instances
            upsample_cfg=dict(type="deconv", scale_factor=2),
            dynamic_conv_cfg=dict(
                type="DynamicConv",
                in_channels=256,
                feat_channels=64,
                out_channels=256,
                input_feat_shape=14,
                with_proj=False,
                act_cfg=dict(type="ReLU", inplace=True),
                norm_cfg=dict(type="LN"),
            ),
            loss_mask=dict(type="DiceLoss", loss_weight=8.0, use_sigmoid=False, activate=False, eps=1e-5),
        ),
    ),
    train_cfg=dict(
        rpn=None,
        rcnn=[  # one per stage; a model with fewer stages ignores the rest
            dict(
                assigner=dict(
                    type="NaNSafeHungarianAssigner",
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
        * 6,
    ),
    test_cfg=dict(rpn=None, rcnn=dict(max_per_img=100, mask_thr_binary=0.5, rescore=True)),
)
