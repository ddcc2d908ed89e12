# CTW1500: 1,000 train and 500 test images, one class. `make data DATASET=ctw1500` writes the COCO JSON.
train_cfg = dict(max_epochs=96)
# Detectors that train for another number of epochs, by their initial weights.
max_epochs_of = dict(QueryInst=dict(sp=20, others=80), Mask2Former=dict(sp=20, others=80))

metainfo = dict(classes=("text",), palette=[(220, 20, 60)])
train_dataloader = dict(
    dataset=dict(
        type="CocoDataset",
        data_root="data/ctw1500",
        ann_file="annotations/train.json",
        data_prefix=dict(img=""),
        metainfo=metainfo,
        filter_cfg=dict(filter_empty_gt=True),
    )
)
val_dataloader = dict(
    dataset=dict(
        type="CocoDataset",
        data_root="data/ctw1500",
        ann_file="annotations/test.json",
        data_prefix=dict(img=""),
        metainfo=metainfo,
        test_mode=True,
    )
)
val_evaluator = dict(type="MaskAP")  # compose adds the annotation file of val_dataloader
