"""A small DETR on EfficientNet-Lite0: trains on two CPU cores."""

_base_ = ["detr.py", "parts/lite0.py"]

model = dict(
    data_preprocessor=_base_.lite0.data_preprocessor,
    num_queries=50,
    backbone=dict(_delete_=True, **_base_.lite0.backbone, out_indices=(3,)),
    neck=dict(in_channels=_base_.lite0.channels[3:], out_channels=64),
    encoder=dict(
        num_layers=2,
        layer_cfg=dict(
            self_attn_cfg=dict(embed_dims=64, dropout=0.0),
            ffn_cfg=dict(embed_dims=64, feedforward_channels=256, ffn_drop=0.0),
        ),
    ),
    decoder=dict(
        num_layers=3,
        layer_cfg=dict(
            self_attn_cfg=dict(embed_dims=64, dropout=0.0),
            cross_attn_cfg=dict(embed_dims=64, dropout=0.0),
            ffn_cfg=dict(embed_dims=64, feedforward_channels=256, ffn_drop=0.0),
        ),
    ),
    positional_encoding=dict(num_feats=32),
    bbox_head=dict(embed_dims=64),
    test_cfg=dict(max_per_img=50),
)
