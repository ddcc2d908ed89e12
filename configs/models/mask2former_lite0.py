"""A small Mask2Former on EfficientNet-Lite0: trains on two CPU cores."""

model = dict(
    type="Mask2Former",
    data_preprocessor=dict(
        type="DetDataPreprocessor",
        mean=[127.5, 127.5, 127.5],  # what the bundled weights were trained with
        std=[127.5, 127.5, 127.5],
        bgr_to_rgb=False,  # LoadPhoto yields RGB
        pad_mask=True,
        pad_size_divisor=32,
    ),
    backbone=dict(type="TimmBackbone", model_name="tf_efficientnet_lite0", frozen_stages=1, norm_eval=True),
    panoptic_head=dict(
        type="Mask2FormerHead",
        in_channels=[24, 40, 112, 320],
        feat_channels=64,
        out_channels=64,
        num_things_classes=80,
        num_stuff_classes=0,
        num_queries=50,
        num_transformer_feat_level=3,
        pixel_decoder=dict(
            type="MSDeformAttnPixelDecoder",
            num_outs=3,
            norm_cfg=dict(type="GN", num_groups=32),
            act_cfg=dict(type="ReLU"),
            encoder=dict(
                num_layers=1,
                layer_cfg=dict(
                    self_attn_cfg=dict(embed_dims=64, num_heads=8, num_levels=3, num_points=4, dropout=0.0),
                    ffn_cfg=dict(embed_dims=64, feedforward_channels=128, num_fcs=2, ffn_drop=0.0),
                ),
            ),
            positional_encoding=dict(num_feats=32, normalize=True),
        ),
        positional_encoding=dict(num_feats=32, normalize=True),
        transformer_decoder=dict(
            num_layers=3,
            return_intermediate=True,
            layer_cfg=dict(
                self_attn_cfg=dict(embed_dims=64, num_heads=8, dropout=0.0),
                cross_attn_cfg=dict(embed_dims=64, num_heads=8, dropout=0.0),
                ffn_cfg=dict(embed_dims=64, feedforward_channels=256, num_fcs=2, ffn_drop=0.0),
            ),
        ),
        loss_cls=dict(type="CrossEntropyLoss", loss_weight=2.0, class_weight=[1.0] * 80 + [0.1]),
        loss_mask=dict(type="CrossEntropyLoss", use_sigmoid=True, loss_weight=5.0),
        loss_dice=dict(type="DiceLoss", activate=True, naive_dice=True, eps=1.0, loss_weight=5.0),
    ),
    panoptic_fusion_head=dict(type="MaskFormerFusionHead", num_things_classes=80, num_stuff_classes=0),
    train_cfg=dict(
        num_points=1024,
        oversample_ratio=3.0,
        importance_sample_ratio=0.75,
        assigner=dict(
            type="HungarianAssigner",
            match_costs=[
                dict(type="ClassificationCost", weight=2.0),
                dict(type="CrossEntropyLossCost", weight=5.0, use_sigmoid=True),
                dict(type="DiceCost", weight=5.0, pred_act=True, eps=1.0),
            ],
        ),
        sampler=dict(type="MaskPseudoSampler"),
    ),
    test_cfg=dict(panoptic_on=False, semantic_on=False, instance_on=True, max_per_image=50),
)

# In pre-training the backbone is frozen whole.
pretraining = dict(backbone=dict(frozen_stages=4))
