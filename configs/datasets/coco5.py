# 5 % of COCO train2017's images, a subset of the 10 %. `make data DATASET=coco5` draws them.
_base_ = "coco10.py"

train_dataloader = dict(dataset=dict(ann_file="annotations/coco5.json"))
