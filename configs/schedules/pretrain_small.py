# The demo's, on smaller photos: for the many runs of a table on two CPU cores.
_base_ = "pretrain_demo.py"

train_dataloader = dict(
    dataset=dict(
        pipeline=[
            dict(type="LoadPhoto"),
            dict(type="LoadPseudoLabels"),
            dict(type="Resize", scale=(192, 192), keep_ratio=True),
            dict(type="RandomFlip", prob=0.5),
            dict(type="DropVanishedMasks"),
            dict(type="PackPseudoLabels"),
        ]
    )
)
