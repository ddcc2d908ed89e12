"""A small MaskFormer on EfficientNet-Lite0: trains on two CPU cores."""

_base_ = ["maskformer.py", "parts/mask_transformer_lite0.py"]

model = dict(
    data_preprocessor=_base_.lite0.data_preprocessor,
    backbone=dict(_delete_=True, **_base_.lite0.backbone),
    panoptic_head=dict(
        **_base_.small_head,
        pixel_decoder=dict(
            encoder=dict(
                num_layers=2,
                layer_cfg=dict(
                    self_attn_cfg=dict(embed_dims=64), ffn_cfg=dict(embed_dims=64, feedforward_channels=256)
                ),
            ),
            positional_encoding=dict(num_feats=32),
        ),
    ),
    test_cfg=dict(max_per_image=50),
)
