"""A small MaskFormer on EfficientNet-Lite0: trains on two CPU cores."""

model = dict(
    type="MaskFormer",
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
        type="MaskFormerHead",
        in_channels=[24, 40, 112, 320],
        feat_channels=64,
        out_channels=64,
        num_things_classes=80,
        num_stuff_classes=0,
        num_queries=50,
        pixel_decoder=dict(
            type="TransformerEncoderPixelDecoder",
            norm_cfg=dict(type="GN", num_groups=32),
            act_cfg=dict(type="ReLU"),
            encoder=dict(
                num_layers=2,
                layer_cfg=dict(
                    self_attn_cfg=dict(embed_dims=64, num_heads=8, dropout=0.0),
                    ffn_cfg=dict(embed_dims=64, feedforward_channels=256, num_fcs=2, ffn_drop=0.0),
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
        loss_cls=dict(type="CrossEntropyLoss", loss_weight=1.0, class_weight=[1.0] * 80 + [0.1]),
        loss_mask=dict(type="Float32FocalLoss", use_sigmoid=True, gamma=2.0, alpha=0.25, loss_weight=20.0),
        loss_dice=dict(type="DiceLoss", activate=True, naive_dice=True, eps=1.0, loss_weight=1.0),
    ),
    panoptic_fusion_head=dict(type="MaskFormerFusionHead", num_things_classes=80, num_stuff_classes=0),
    train_cfg=dict(
        assigner=dict(
            type="HungarianAssigner",
            match_costs=[
                dict(type="ClassificationCost", weight=1.0),
                dict(type="FocalLossCost", weight=20.0, binary_input=True),
                dict(type="DiceCost", weight=1.0, pred_act=True, eps=1.0),
            ],
        ),
        sampler=dict(type="MaskPseudoSampler"),
    ),
    test_cfg=dict(panoptic_on=False, semantic_on=False, instance_on=True, max_per_image=50),
)

# In pre-training the backbone is frozen whole.
pretraining = dict(backbone=dict(frozen_stages=4))
