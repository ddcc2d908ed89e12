"""What Mask2Former and MaskFormer have in common: ResNet-50, 100 queries, a transformer decoder, instances only."""

_base_ = "resnet50.py"

model = dict(
    panoptic_head=dict(
        in_channels=[256, 512, 1024, 2048],
        feat_channels=256,
        out_channels=256,
        num_things_classes=80,
        num_stuff_classes=0,
        num_queries=100,
        pixel_decoder=dict(
            norm_cfg=dict(type="GN", num_groups=32),
            act_cfg=dict(type="ReLU"),
            encoder=dict(
                num_layers=6,
                layer_cfg=dict(
                    self_attn_cfg=dict(embed_dims=256, num_heads=8, dropout=0.0),
                    ffn_cfg=dict(embed_dims=256, num_fcs=2, ffn_drop=0.0),
                ),
            ),
            positional_encoding=dict(num_feats=128, normalize=True),
        ),
        positional_encoding=dict(num_feats=128, normalize=True),
        transformer_decoder=dict(
            return_intermediate=True,
            layer_cfg=dict(
                self_attn_cfg=dict(embed_dims=256, num_heads=8, dropout=0.0),
                cross_attn_cfg=dict(embed_dims=256, num_heads=8, dropout=0.0),
                ffn_cfg=dict(embed_dims=256, feedforward_channels=2048, num_fcs=2, ffn_drop=0.0),
            ),
        ),
    ),
    panoptic_fusion_head=dict(type="UniqueFusionHead", num_things_classes=80, num_stuff_classes=0),
    train_cfg=dict(sampler=dict(type="MaskPseudoSampler")),
    test_cfg=dict(panoptic_on=False, semantic_on=False, instance_on=True, max_per_image=100, rescore=True),
)
