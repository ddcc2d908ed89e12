"""A small Mask2Former on EfficientNet-Lite0: trains on two CPU cores."""

_base_ = ["mask2former.py", "parts/mask_transformer_lite0.py"]

model = dict(
    data_preprocessor=_base_.lite0.data_preprocessor,
    backbone=dict(_delete_=True, **_base_.lite0.backbone),
    panoptic_head=dict(
        **_base_.small_head,
        pixel_decoder=dict(
            encoder=dict(
                num_layers=1,
                layer_cfg=dict(
                    self_attn_cfg=dict(embed_dims=64), ffn_cfg=dict(embed_dims=64, feedforward_channels=128)
                ),
            ),
            positional_encoding=dict(num_feats=32),
        ),
    ),
    train_cfg=dict(num_points=1024),
    test_cfg=dict(max_per_image=50),
)
