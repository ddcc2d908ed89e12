"""MaskFormer, ResNet-50 (PyTorch style), 6 decoder layers, 100 queries."""

_base_ = "parts/mask_transformer.py"

model = dict(
    type="MaskFormer",
    panoptic_head=dict(
        type="MaskFormerHead",
        pixel_decoder=dict(
            type="TransformerEncoderPixelDecoder",
            encoder=dict(layer_cfg=dict(ffn_cfg=dict(feedforward_channels=2048))),
        ),
        transformer_decoder=dict(num_layers=6),
        loss_cls=dict(type="CrossEntropyLoss", loss_weight=1.0, class_weight=[1.0] * 80 + [0.1]),
        loss_mask=dict(type="Float32FocalLoss", use_sigmoid=True, gamma=2.0, alpha=0.25, loss_weight=20.0),
        loss_dice=dict(type="DiceLoss", activate=True, naive_dice=True, eps=1.0, loss_weight=1.0),
    ),
    train_cfg=dict(
        assigner=dict(
            type="NaNSafeHungarianAssigner",
            match_costs=[
                dict(type="ClassificationCost", weight=1.0),
                dict(type="FocalLossCost", weight=20.0, binary_input=True),
                dict(type="DiceCost", weight=1.0, pred_act=True, eps=1.0),
            ],
        ),
    ),
)
