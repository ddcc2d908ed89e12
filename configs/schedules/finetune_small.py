# The demo's, on smaller photos: for the many runs of a table on two CPU cores.
_base_ = "finetune_demo.py"

train_dataloader = dict(
    dataset=dict(
        pipeline=[
            dict(type="LoadPhoto"),
            dict(type="LoadAnnotations", with_bbox=True, with_mask=True),
            dict(type="Resize", scale=(192, 192), keep_ratio=True),
            dict(type="RandomFlip", prob=0.5),
            dict(type="Rotate", prob=0.5, max_mag=10.0, img_border_value=(124, 116, 104)),
            dict(type="DropVanishedMasks"),
            dict(type="PackDetInputs"),
        ]
    )
)
val_dataloader = dict(
    dataset=dict(
        pipeline=[
            dict(type="LoadPhoto"),
            dict(type="Resize", scale=(192, 192), keep_ratio=True),
            dict(type="PackDetInputs", meta_keys=("img_id", "img_path", "ori_shape", "img_shape", "scale_factor")),
        ]
    ),
)
