# Fine-tuning on images of 2048 x 1024: as large as MMDetection takes them for Cityscapes, shorter side 800 to 1024.
_base_ = "finetune.py"

train_dataloader = dict(batch_size=6)  # at most, in a process at a time: twice the pixels of COCO's images
_base_.train_dataloader.dataset.pipeline[2] = dict(
    type="RandomResize", scale=[(2048, 800), (2048, 1024)], keep_ratio=True
)
_base_.val_dataloader.dataset.pipeline[1].scale = (2048, 1024)
