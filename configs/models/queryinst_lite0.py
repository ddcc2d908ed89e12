"""A small QueryInst on EfficientNet-Lite0: trains on two CPU cores."""

_base_ = ["queryinst.py", "parts/lite0.py"]

model = dict(
    data_preprocessor=_base_.lite0.data_preprocessor,
    backbone=dict(_delete_=True, **_base_.lite0.backbone),
    neck=dict(in_channels=_base_.lite0.channels, out_channels=64),
    rpn_head=dict(num_proposals=50, proposal_feature_channel=64),
    roi_head=dict(
        num_stages=3,
        stage_loss_weights=[1.0] * 3,
        proposal_feature_channel=64,
        bbox_roi_extractor=dict(roi_layer=dict(sampling_ratio=1), out_channels=64),
        mask_roi_extractor=dict(roi_layer=dict(sampling_ratio=1), out_channels=64),
        bbox_head=dict(
            num_reg_fcs=1,
            feedforward_channels=256,
            in_channels=64,
            dynamic_conv_cfg=dict(in_channels=64, feat_channels=16, out_channels=64),
        ),
        mask_head=dict(
            num_convs=1,
            in_channels=64,
            conv_out_channels=64,
            dynamic_conv_cfg=dict(in_channels=64, feat_channels=16, out_channels=64),
        ),
    ),
    test_cfg=dict(rcnn=dict(max_per_img=50)),
)
