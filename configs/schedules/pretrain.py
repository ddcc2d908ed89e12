# Pre-training as in the paper: 12 epochs, total batch 96, random flip only.
train_cfg = dict(type="ResumableEpochLoop", max_epochs=12, total_batch=96)
train_dataloader = dict(
    batch_size=12,  # at most, in a process at a time
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type="ShardSampler", shuffle=True),
    dataset=dict(
        pipeline=[
            dict(type="LoadRGBImage"),
            dict(type="LoadPseudoLabels"),
            dict(type="Resize", scale=(1333, 800), keep_ratio=True),
            dict(type="RandomFlip", prob=0.5),
            dict(type="BoxesFromMasks"),
            dict(type="PackPseudoLabels"),
        ]
    ),
)
optim_wrapper = dict(
    type="AccumulatingOptimWrapper",
    optimizer=dict(type="AdamW", lr=1e-4, weight_decay=0.05),
    clip_grad=dict(max_norm=1.0, norm_type=2),
)
param_scheduler = [
    dict(type="ShortWarmUpLR", steps=1000, start_factor=0.001, by_epoch=False),
    dict(type="ScaledMultiStepLR", milestones=[8, 11], of_epochs=12, gamma=0.1, convert_to_iter_based=True),
]
auto_scale_lr = dict(enable=False, base_batch_size=96)
