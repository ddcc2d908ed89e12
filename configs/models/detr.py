"""DETR, ResNet-50 (PyTorch style), 6 encoder and 6 decoder layers, 100 queries: boxes alone."""

_base_ = "parts/resnet50.py"

model = dict(
    type="DETR",
    num_queries=100,
    backbone=dict(out_indices=(3,)),
    neck=dict(
        type="ChannelMapper",
        in_channels=[2048],
        kernel_size=1,
        out_channels=256,
        act_cfg=None,
        norm_cfg=None,
        num_outs=1,
    ),
    encoder=dict(
        num_layers=6,
        layer_cfg=dict(
            self_attn_cfg=dict(embed_dims=256, num_heads=8, dropout=0.1),
            ffn_cfg=dict(embed_dims=256, feedforward_channels=2048, num_fcs=2, ffn_drop=0.1, act_cfg=dict(type="ReLU")),
        ),
    ),
    decoder=dict(
        num_layers=6,
        return_intermediate=True,
        layer_cfg=dict(
            self_attn_cfg=dict(embed_dims=256, num_heads=8, dropout=0.1),
            cross_attn_cfg=dict(embed_dims=256, num_heads=8, dropout=0.1),
            ffn_cfg=dict(embed_dims=256, feedforward_channels=2048, num_fcs=2, ffn_drop=0.1, act_cfg=dict(type="ReLU")),
        ),
    ),
    positional_encoding=dict(num_feats=128, normalize=True),
    bbox_head=dict(
        type="ListWeightsDETRHead",
        num_classes=80,
        embed_dims=256,
        loss_cls=dict(type="CrossEntropyLoss", loss_weight=1.0, class_weight=[1.0] * 80 + [0.1]),
        loss_bbox=dict(type="L1Loss", loss_weight=5.0),
        loss_iou=dict(type="GIoULoss", loss_weight=2.0),
    ),
    train_cfg=dict(
        assigner=dict(
            type="NaNSafeHungarianAssigner",
            match_costs=[
                dict(type="ClassificationCost", weight=1.0),
                dict(type="BBoxL1Cost", weight=5.0, box_format="xywh"),
                dict(type="IoUCost", iou_mode="giou", weight=2.0),
            ],
        ),
    ),
    test_cfg=dict(max_per_img=100),
)

# As DETR and UP-DETR are trained.
optim_wrapper = dict(optimizer=dict(weight_decay=1e-4), clip_grad=dict(max_norm=0.1, norm_type=2))
