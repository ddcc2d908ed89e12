# The pseudo labels of stage 1. The pre-training command fills in `shards` and `image_root`.
train_dataloader = dict(dataset=dict(type="PseudoLabelDataset", shards=None, image_root=None))
