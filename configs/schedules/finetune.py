# Fine-tuning as in the paper: total batch 96, flip and rotation. The dataset sets the number of epochs.
train_cfg = dict(type="ResumableEpochLoop", total_batch=96, val_interval=1)
val_cfg = dict(type="ValLoop")
train_dataloader = dict(
    batch_size=12,  # at most, in a process at a time
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type="ResumableSampler", shuffle=True),
    dataset=dict(
        pipeline=[
            dict(type="LoadRGBImage"),
            dict(type="LoadAnnotations", with_bbox=True, with_mask=True),
            dict(type="Resize", scale=(1333, 800), keep_ratio=True),
            dict(type="RandomFlip", prob=0.5),
            # The paper names no angle; the border has the mean colour.
            dict(type="Rotate", prob=0.5, max_mag=10.0, img_border_value=(124, 116, 104)),
            dict(type="BoxesFromMasks"),
            dict(type="PackDetInputs"),
        ]
    ),
)
val_dataloader = dict(
    batch_size=1,
    num_workers=2,
    persistent_workers=True,
    drop_last=False,
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(
        pipeline=[
            dict(type="LoadRGBImage"),
            dict(type="Resize", scale=(1333, 800), keep_ratio=True),
            dict(type="PackDetInputs", meta_keys=("img_id", "img_path", "ori_shape", "img_shape", "scale_factor")),
        ]
    ),
)
optim_wrapper = dict(
    type="AccumulatingOptimWrapper",
    optimizer=dict(type="AdamW", lr=1e-4, weight_decay=0.05),
    paramwise_cfg=dict(custom_keys=dict(backbone=dict(lr_mult=0.25))),
    clip_grad=dict(max_norm=1.0, norm_type=2),
)
param_scheduler = [
    dict(type="ShortWarmUpLR", steps=100, start_factor=0.001, by_epoch=False),
    dict(type="ScaledMultiStepLR", milestones=[9, 11], of_epochs=12, gamma=0.1, convert_to_iter_based=True),
]
auto_scale_lr = dict(enable=False, base_batch_size=96)
