# The demo's, on smaller images: for the many runs of a table on two CPU cores.
_base_ = "pretrain_demo.py"

_base_.train_dataloader.dataset.pipeline[2].scale = (192, 192)
