# Fine-tuning in the demo: as on any CPU, with smaller images.
_base_ = "finetune_cpu.py"

train_dataloader = dict(
    batch_size=8,
    dataset=dict(
        pipeline=[
            dict(type="LoadRGBImage"),
            dict(type="LoadAnnotations", with_bbox=True, with_mask=True),
            dict(type="Resize", scale=(256, 256), keep_ratio=True),
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
            dict(type="Resize", scale=(256, 256), keep_ratio=True),
            dict(type="PackDetInputs", meta_keys=("img_id", "img_path", "ori_shape", "img_shape", "scale_factor")),
        ]
    ),
)
