# Cityscapes' fine annotations: 2,975 train and 500 val images, 8 classes. `make data DATASET=cityscapes` converts them.
default_schedule = "finetune_cityscapes"
train_cfg = dict(max_epochs=24)

# Classes and colours as in MMDetection.
metainfo = dict(
    classes=("person", "rider", "car", "truck", "bus", "train", "motorcycle", "bicycle"),
    palette=[
        (220, 20, 60),
        (255, 0, 0),
        (0, 0, 142),
        (0, 0, 70),
        (0, 60, 100),
        (0, 80, 100),
        (0, 0, 230),
        (119, 11, 32),
    ],
)
train_dataloader = dict(
    dataset=dict(
        type="CityscapesDataset",  # also leaves out images whose only objects are groups
        data_root="data/cityscapes",
        ann_file="annotations/train.json",
        data_prefix=dict(img=""),
        metainfo=metainfo,
        filter_cfg=dict(filter_empty_gt=True),
    )
)
val_dataloader = dict(
    dataset=dict(
        type="CityscapesDataset",
        data_root="data/cityscapes",
        ann_file="annotations/val.json",
        data_prefix=dict(img=""),
        metainfo=metainfo,
        test_mode=True,
    )
)
val_evaluator = dict(type="MaskAP")  # compose adds the annotation file of val_dataloader
