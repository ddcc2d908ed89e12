# Pre-training in the demo: as on any CPU, with smaller images.
_base_ = "pretrain_cpu.py"

train_dataloader = dict(
    batch_size=8,
    dataset=dict(
        pipeline=[
            dict(type="LoadRGBImage"),
            dict(type="LoadPseudoLabels"),
            dict(type="Resize", scale=(256, 256), keep_ratio=True),
            dict(type="RandomFlip", prob=0.5),
            dict(type="BoxesFromMasks"),
            dict(type="PackPseudoLabels"),
        ]
    ),
)
