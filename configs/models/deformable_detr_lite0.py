"""A small Deformable DETR on EfficientNet-Lite0: trains on two CPU cores."""

_base_ = ["deformable_detr.py", "parts/lite0.py"]

model = dict(
    data_preprocessor=_base_.lite0.data_preprocessor,
    num_queries=50,
    num_feature_levels=3,
    backbone=dict(_delete_=True, **_base_.lite0.backbone, out_indices=(1, 2, 3)),
    neck=dict(in_channels=_base_.lite0.channels[1:], out_channels=64, num_outs=3),
    encoder=dict(
        num_layers=1,
        layer_cfg=dict(
            self_attn_cfg=dict(embed_dims=64, num_levels=3, dropout=0.0),
            ffn_cfg=dict(embed_dims=64, feedforward_channels=128, ffn_drop=0.0),
        ),
    ),
    decoder=dict(
        num_layers=3,
        layer_cfg=dict(
            self_attn_cfg=dict(embed_dims=64, dropout=0.0),
            cross_attn_cfg=dict(embed_dims=64, num_levels=3, dropout=0.0),
            ffn_cfg=dict(embed_dims=64, feedforward_channels=256, ffn_drop=0.0),
        ),
    ),
    positional_encoding=dict(num_feats=32),
    bbox_head=dict(embed_dims=64),
    test_cfg=dict(max_per_img=50),
)
