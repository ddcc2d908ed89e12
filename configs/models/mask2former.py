"""Mask2Former, ResNet-50 (PyTorch style), 9 decoder layers, 100 queries."""

_base_ = "parts/mask_transformer.py"

model = dict(
    type="Mask2Former",
    panoptic_head=dict(
        type="Mask2FormerHead",
        num_transformer_feat_level=3,
        pixel_decoder=dict(
            type="MSDeformAttnPixelDecoder",
            num_outs=3,
            encoder=dict(
                layer_cfg=dict(self_attn_cfg=dict(num_levels=3, num_points=4), ffn_cfg=dict(feedforward_channels=1024))
            ),
        ),
        transformer_decoder=dict(num_layers=9),
        loss_cls=dict(type="CrossEntropyLoss", loss_weight=2.0, class_weight=[1.0] * 80 + [0.1]),
        loss_mask=dict(type="CrossEntropyLoss", use_sigmoid=True, loss_weight=5.0),
        loss_dice=dict(type="DiceLoss", activate=True, naive_dice=True, eps=1.0, loss_weight=5.0),
    ),
    train_cfg=dict(
        num_points=12544,
        oversample_ratio=3.0,
        importance_sample_ratio=0.75,
        assigner=dict(
            type="NaNSafeHungarianAssigner",
            match_costs=[
                dict(type="ClassificationCost", weight=2.0),
                dict(type="CrossEntropyLossCost", weight=5.0, use_sigmoid=True),
                dict(type="DiceCost", weight=5.0, pred_act=True, eps=1.0),
            ],
        ),
    ),
)
