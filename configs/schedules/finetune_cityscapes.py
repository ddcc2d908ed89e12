# Fine-tuning on images of 2048 x 1024: as large as MMDetection takes them for Cityscapes, shorter side 800 to 1024. An
# epoch takes each image 8 times, as MMDetection's config and the later release of the paper's authors do.
_base_ = "finetune.py"

train_dataloader = dict(
    batch_size=6,  # at most, in a process at a time: images have twice the pixels of COCO's
    sampler=dict(repeats=8),
    dataset=dict(
        pipeline=[
            dict(type="LoadRGBImage"),
            dict(type="LoadAnnotations", with_bbox=True, with_mask=True),
            dict(type="RandomResize", scale=[(2048, 800), (2048, 1024)], keep_ratio=True),
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
            dict(type="Resize", scale=(2048, 1024), keep_ratio=True),
            dict(type="PackDetInputs", meta_keys=("img_id", "img_path", "ori_shape", "img_shape", "scale_factor")),
        ]
    ),
)
param_scheduler = [
    dict(type="ShortWarmUpLR", steps=100, start_factor=0.001, by_epoch=False),
    dict(type="ScaledMultiStepLR", milestones=[16, 22], of_epochs=24, gamma=0.1, convert_to_iter_based=True),
]
