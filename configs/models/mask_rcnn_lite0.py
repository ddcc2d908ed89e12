"""A small Mask R-CNN on EfficientNet-Lite0: trains on two CPU cores."""

_base_ = ["mask_rcnn.py", "parts/lite0.py"]

model = dict(
    data_preprocessor=_base_.lite0.data_preprocessor,
    backbone=dict(_delete_=True, **_base_.lite0.backbone),
    neck=dict(in_channels=_base_.lite0.channels, out_channels=64),
    rpn_head=dict(in_channels=64, feat_channels=64, anchor_generator=dict(scales=[4])),
    roi_head=dict(
        bbox_roi_extractor=dict(out_channels=64),
        bbox_head=dict(in_channels=64, fc_out_channels=256),
        mask_roi_extractor=dict(out_channels=64),
        mask_head=dict(num_convs=2, in_channels=64, conv_out_channels=64),
    ),
    train_cfg=dict(rpn_proposal=dict(nms_pre=500, max_per_img=250), rcnn=dict(sampler=dict(num=128))),
    test_cfg=dict(rpn=dict(nms_pre=250, max_per_img=250)),
)

# The paper's learning rate and unclipped gradients diverge on small batches.
optim_wrapper = dict(optimizer=dict(lr=0.005), clip_grad=dict(_delete_=True, max_norm=5.0, norm_type=2))
