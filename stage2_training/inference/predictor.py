"""Predictions of a trained detector, on the test images of its config or on any image."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from mmcv.transforms import Compose
from mmdet.models.detectors import BaseDetector
from mmdet.structures import DetDataSample
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.device import get_device
from mmengine.structures import InstanceData
from torch import Tensor
from torch.utils.data import DataLoader

from stage1_proposals.common.checkpoints import match_tensors, read_tensors
from stage2_training.runs.runner import QuietRunner
from stage2_training.runs.train import build_model


def load_detector(config: Config, checkpoint: str | Path) -> BaseDetector:
    """The config's detector with the weights of a checkpoint, in evaluation mode, on the device of training.

    Raises:
        UserError: the checkpoint cannot be read or is of another model.
    """
    model = build_model(config)
    weights = read_tensors(checkpoint)
    match_tensors(weights, model.state_dict()).require_all(checkpoint)
    model.load_state_dict(weights)
    return model.to(get_device()).eval()


def image_loader(config: Config, limit: int | None = None) -> DataLoader:
    """The data loader of the config's test images, or of the first `limit` of them."""
    loader = config.test_dataloader.copy()
    loader.dataset = {**loader.dataset, "indices": limit} if limit else loader.dataset
    return QuietRunner.build_dataloader(loader, seed=config.randomness.seed)


def preprocess(
    model: BaseDetector, batch: dict[str, Any], training: bool = False
) -> tuple[Tensor, list[DetDataSample]]:
    """A data loader's batch as the network takes it: normalised, padded images (B, 3, H, W), and their samples.

    Args:
        training: pad the labels, too.
    """
    data = model.data_preprocessor(batch, training)
    return data["inputs"], data["data_samples"]


@torch.no_grad()
def detect(model: BaseDetector, pipeline: Sequence[dict[str, Any]], image: str | Path) -> InstanceData:
    """Detect the objects of an image.

    Args:
        pipeline: transforms of the config's test images.

    Returns:
        `masks` bool (R, H, W) of the image's size, `labels`, `scores` and `bboxes` of R objects.

    Raises:
        UserError: the image cannot be read.
    """
    data = Compose(list(pipeline))({"img_path": str(image), "img_id": 0})
    return model.test_step(pseudo_collate([data]))[0].pred_instances
