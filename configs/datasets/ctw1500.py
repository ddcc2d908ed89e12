# CTW1500: 1,000 train and 500 test images, one class. `make data DATASET=ctw1500` writes the COCO JSON.
epochs = 96
epochs_of = dict(QueryInst=dict(sp=20, others=80), Mask2Former=dict(sp=20, others=80))  # by initial weights
milestones = (72, 88)  # 75 % and 92 %; they move with the epochs

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
val_evaluator = dict(type="MaskAP")  # judges by the labels of val_dataloader
