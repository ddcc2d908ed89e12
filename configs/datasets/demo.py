# The demo's images in CTW1500's layout: 60 train and 60 test images. `make data DATASET=demo` makes it.
_base_ = "ctw1500.py"

default_schedule = "finetune_demo"
train_cfg = dict(max_epochs=20)
max_epochs_of = None

train_dataloader = dict(dataset=dict(data_root="data/demo/ctw1500"))
val_dataloader = dict(dataset=dict(data_root="data/demo/ctw1500"))
