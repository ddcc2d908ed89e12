"""A small QueryInst on EfficientNet-Lite0: trains on two CPU cores."""

_base_ = "queryinst.py"

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
