# Fine-tuning at a size for two CPU cores: small images, a larger learning rate.
_base_ = "finetune.py"

train_cfg = dict(total_batch=8, val_interval=5)
train_dataloader = dict(batch_size=8, num_workers=2)
_base_.train_dataloader.dataset.pipeline[2].scale = (256, 256)
_base_.val_dataloader.dataset.pipeline[1].scale = (256, 256)
optim_wrapper = dict(optimizer=dict(lr=8e-4))
param_scheduler = [
    dict(type="LinearLR", start_factor=0.001, by_epoch=False, begin=0, end=20),
    dict(type="MultiStepLR", gamma=0.1, by_epoch=True, convert_to_iter_based=True),
]
default_hooks = dict(checkpoint=dict(interval=20))
auto_scale_lr = dict(base_batch_size=8)
