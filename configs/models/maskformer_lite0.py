"""A small MaskFormer on EfficientNet-Lite0: trains on two CPU cores."""

_base_ = "maskformer.py"

model = dict(
    data_preprocessor=dict(mean=[127.5] * 3, std=[127.5] * 3),  # what the bundled weights were trained with
    backbone=dict(
        _delete_=True, type="TimmBackbone", model_name="tf_efficientnet_lite0", frozen_stages=1, norm_eval=True
    ),
    panoptic_head=dict(
        in_channels=[24, 40, 112, 320],
        feat_channels=64,
        out_channels=64,
        num_queries=50,
        pixel_decoder=dict(
            encoder=dict(
                num_layers=2,
                layer_cfg=dict(
                    self_attn_cfg=dict(embed_dims=64), ffn_cfg=dict(embed_dims=64, feedforward_channels=256)
                ),
            ),
            positional_encoding=dict(num_feats=32),
        ),
        positional_encoding=dict(num_feats=32),
        transformer_decoder=dict(
            num_layers=3,
            layer_cfg=dict(
                self_attn_cfg=dict(embed_dims=64),
                cross_attn_cfg=dict(embed_dims=64),
                ffn_cfg=dict(embed_dims=64, feedforward_channels=256),
            ),
        ),
    ),
    test_cfg=dict(max_per_image=50),
)
