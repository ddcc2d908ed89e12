"""K-Net small enough for a test to build, train and run: `--cfg-options` of it, and of the photos that it sees."""

MODEL = (
    "model.neck.out_channels=32",
    "model.rpn_head.channels=32",
    "model.rpn_head.num_kernels=6",
    "model.roi_head.channels=32",
    "model.roi_head.ffn_channels=32",
    "model.roi_head.num_stages=2",
)
TRAINING_PHOTOS = ("train_dataloader.dataset.pipeline.2.scale=(64,64)",)
TEST_PHOTOS = ("val_dataloader.dataset.pipeline.1.scale=(64,64)",)
