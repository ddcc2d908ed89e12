"""K-Net small enough for a test to build, train and run: `--cfg-options` of it, and of the images that it sees."""

from pathlib import Path

import torch
from mmengine.config import Config

from stage1_proposals.common.system import choose_device
from stage2_training.runs import train as training
from stage2_training.runs.work_dir import WorkDir

MODEL = (
    "model.neck.out_channels=32",
    "model.rpn_head.channels=32",
    "model.rpn_head.num_kernels=6",
    "model.roi_head.channels=32",
    "model.roi_head.ffn_channels=32",
    "model.roi_head.num_stages=2",
)
TRAINING_IMAGES = ("train_dataloader.dataset.pipeline.2.scale=(64,64)",)
TEST_IMAGES = ("val_dataloader.dataset.pipeline.1.scale=(64,64)",)


def untrained_run(directory: Path, config: Config) -> Path:
    """Leave a run that has done no step, with its initial weights as checkpoint; returns its directory."""
    choose_device("cpu")
    WorkDir(directory).create_or_verify(config)
    torch.save({"state_dict": training.initial_model(config)}, directory / "iter_1.pth")
    (directory / "last_checkpoint").write_text("iter_1.pth")
    return directory
