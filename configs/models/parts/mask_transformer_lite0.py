"""The small sizes that Mask2Former and MaskFormer have in common, as `_base_.small_head`."""

_base_ = "lite0.py"

small_head = dict(
    in_channels=_base_.lite0.channels,
    feat_channels=64,
    out_channels=64,
    num_queries=50,
    positional_encoding=dict(num_feats=32),
    transformer_decoder=dict(
        num_layers=3,
        layer_cfg=dict(
            self_attn_cfg=dict(embed_dims=64),
            cross_attn_cfg=dict(embed_dims=64),
            ffn_cfg=dict(embed_dims=64, feedforward_channels=256),
        ),
    ),
)
