# Pre-training on a CPU: images small enough for its memory, a few at a time, and more, smaller steps than the paper's.
_base_ = "pretrain.py"

train_cfg = dict(max_epochs=6, total_batch=8)
train_dataloader = dict(
    batch_size=4,  # at most, in a process at a time: 2 to 4 GB in all
    num_workers=2,
    dataset=dict(
        pipeline=[
            dict(type="LoadRGBImage"),
            dict(type="LoadPseudoLabels"),
            dict(type="Resize", scale=(512, 512), keep_ratio=True),
            dict(type="RandomFlip", prob=0.5),
            dict(type="BoxesFromMasks"),
            dict(type="PackPseudoLabels"),
        ]
    ),
)
# The demo's learning rate, warm-up and milestone, which were found at this total batch.
optim_wrapper = dict(optimizer=dict(lr=4e-4))
param_scheduler = [
    dict(type="ShortWarmUpLR", steps=20, start_factor=0.001, by_epoch=False),
    dict(type="ScaledMultiStepLR", milestones=[5], of_epochs=6, gamma=0.1, convert_to_iter_based=True),
]
default_hooks = dict(checkpoint=dict(interval=20))
auto_scale_lr = dict(base_batch_size=8)
