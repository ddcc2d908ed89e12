# The pseudo labels of stage 1; `shards` and `image_root` are filled in by pre-training's options.
train_dataloader = dict(dataset=dict(type="PseudoLabelDataset", shards=None, image_root=None))
