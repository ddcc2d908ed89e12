# The embedded set in CTW1500's layout: 60 train and 60 test images. `make data DATASET=demo` makes it.
_base_ = "ctw1500.py"

schedule = "finetune_demo"
epochs = 20
epochs_of = None
milestones = (15, 18)

train_dataloader = dict(dataset=dict(data_root="data/demo/ctw1500"))
val_dataloader = dict(dataset=dict(data_root="data/demo/ctw1500"))
