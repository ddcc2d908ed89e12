# Fine-tuning on a CPU: images small enough for its memory, a few at a time, and more, smaller steps than the paper's.
_base_ = "finetune.py"

train_cfg = dict(total_batch=8, val_interval=5)
train_dataloader = dict(
    batch_size=4,  # at most, in a process at a time: 2 to 4 GB in all
    num_workers=2,
    dataset=dict(
        pipeline=[
            dict(type="LoadRGBImage"),
            dict(type="LoadAnnotations", with_bbox=True, with_mask=True),
            dict(type="Resize", scale=(512, 512), keep_ratio=True),
            dict(type="RandomFlip", prob=0.5),
            dict(type="Rotate", prob=0.5, max_mag=10.0, img_border_value=(124, 116, 104)),
            dict(type="BoxesFromMasks"),
            dict(type="PackDetInputs"),
        ]
    ),
)
val_dataloader = dict(
    dataset=dict(
        pipeline=[
            dict(type="LoadRGBImage"),
            dict(type="Resize", scale=(512, 512), keep_ratio=True),
            dict(type="PackDetInputs", meta_keys=("img_id", "img_path", "ori_shape", "img_shape", "scale_factor")),
        ]
    ),
)
# The demo's learning rate, warm-up and milestones, which were found at this total batch.
optim_wrapper = dict(optimizer=dict(lr=8e-4))
# Half of it after pre-training: Saliency Prompt's AP then depends less on the seed (docs/results.md). From ImageNet
# weights it costs AP; other models were not measured.
lr_factor_of = dict(KNet=dict(sp=0.5, pseudo=0.5))
param_scheduler = [
    dict(type="ShortWarmUpLR", steps=20, start_factor=0.001, by_epoch=False),
    dict(type="ScaledMultiStepLR", milestones=[15, 18], of_epochs=20, gamma=0.1, convert_to_iter_based=True),
]
default_hooks = dict(checkpoint=dict(interval=20))
auto_scale_lr = dict(base_batch_size=8)
