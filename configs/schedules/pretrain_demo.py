# Pre-training at a size for two CPU cores: small images, few epochs, a larger learning rate.
_base_ = "pretrain.py"

train_cfg = dict(max_epochs=6, total_batch=8)
train_dataloader = dict(
    batch_size=8,
    num_workers=2,
    dataset=dict(
        pipeline=[
            dict(type="LoadRGBImage"),
            dict(type="LoadPseudoLabels"),
            dict(type="Resize", scale=(256, 256), keep_ratio=True),
            dict(type="RandomFlip", prob=0.5),
            dict(type="DropVanishedMasks"),
            dict(type="PackPseudoLabels"),
        ]
    ),
)
optim_wrapper = dict(optimizer=dict(lr=4e-4))
param_scheduler = [
    dict(type="ShortWarmUpLR", steps=20, start_factor=0.001, by_epoch=False),
    dict(type="ScaledMultiStepLR", milestones=[5], of_epochs=6, gamma=0.1, convert_to_iter_based=True),
]
default_hooks = dict(checkpoint=dict(interval=20))
auto_scale_lr = dict(base_batch_size=8)
