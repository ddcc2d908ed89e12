# 10 % of COCO train2017's images, evaluated on val2017. `make data DATASET=coco10` draws them.
train_cfg = dict(max_epochs=48)

# In the order of COCO's annotation files.
# fmt: off
metainfo = dict(classes=(
    "person", "bicycle", "car", "motorcycle", "airplane", "bus", "train", "truck", "boat", "traffic light",
    "fire hydrant", "stop sign", "parking meter", "bench", "bird", "cat", "dog", "horse", "sheep", "cow", "elephant",
    "bear", "zebra", "giraffe", "backpack", "umbrella", "handbag", "tie", "suitcase", "frisbee", "skis", "snowboard",
    "sports ball", "kite", "baseball bat", "baseball glove", "skateboard", "surfboard", "tennis racket", "bottle",
    "wine glass", "cup", "fork", "knife", "spoon", "bowl", "banana", "apple", "sandwich", "orange", "broccoli",
    "carrot", "hot dog", "pizza", "donut", "cake", "chair", "couch", "potted plant", "bed", "dining table", "toilet",
    "tv", "laptop", "mouse", "remote", "keyboard", "cell phone", "microwave", "oven", "toaster", "sink",
    "refrigerator", "book", "clock", "vase", "scissors", "teddy bear", "hair drier", "toothbrush",
))
# fmt: on
train_dataloader = dict(
    dataset=dict(
        type="CocoDataset",
        data_root="data/coco",
        ann_file="annotations/coco10.json",
        data_prefix=dict(img="train2017/"),
        metainfo=metainfo,
        filter_cfg=dict(filter_empty_gt=True),
    )
)
val_dataloader = dict(
    dataset=dict(
        type="CocoDataset",
        data_root="data/coco",
        ann_file="annotations/instances_val2017.json",
        data_prefix=dict(img="val2017/"),
        metainfo=metainfo,
        test_mode=True,
    )
)
val_evaluator = dict(type="MaskAP")  # compose adds the annotation file of val_dataloader
