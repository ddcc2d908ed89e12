"""Predictions of a trained detector, on the test images of its config or on any image."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmcv.transforms import Compose
from mmdet.models.detectors import BaseDetector
from mmdet.structures import DetDataSample
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.device import get_device
from mmengine.structures import InstanceData
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader

from stage1_proposals.common.checkpoints import match_tensors, read_tensors
from stage1_proposals.common.drawing import TILE, draw_named
from stage2_training.evaluation.activations import Activations, mean_maps
from stage2_training.evaluation.query_masks import query_masks
from stage2_training.runs.runner import QuietRunner
from stage2_training.runs.train import build_model


def load_detector(config: Config, checkpoint: str | Path, device: str | None = None) -> BaseDetector:
    """The config's detector with the weights of a checkpoint, in evaluation mode.

    Args:
        device: default: that of training.

    Raises:
        UserError: the checkpoint cannot be read or is of another model.
    """
    model = build_model(config)
    weights = read_tensors(checkpoint)
    match_tensors(weights, model.state_dict()).require_all(checkpoint)
    model.load_state_dict(weights)
    return model.to(device or get_device()).eval()


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
def detect(
    model: BaseDetector, pipeline: Sequence[dict[str, Any]], image: str | Path | NDArray[np.uint8]
) -> InstanceData:
    """Detect the objects of an image.

    Args:
        pipeline: transforms of the config's test images.
        image: its path, or its pixels, uint8 (H, W, 3) RGB.

    Returns:
        `masks` bool (R, H, W) of the image's size, `labels`, `scores` and `bboxes` of R objects.

    Raises:
        UserError: the image cannot be read.
    """
    given: dict[str, Any] = {"img_path": "", "img_id": 0}
    if isinstance(image, np.ndarray):
        given |= {"img": image, "img_shape": image.shape[:2], "ori_shape": image.shape[:2]}
        pipeline = [transform for transform in pipeline if transform["type"] != "LoadRGBImage"]
    else:
        given["img_path"] = str(image)
    data = Compose(list(pipeline))(given)
    return model.test_step(pseudo_collate([data]))[0].pred_instances


def draw_detections(
    model: BaseDetector,
    config: Config,
    image: str | Path,
    pixels: NDArray[np.uint8],
    min_score: float,
    tile: int = TILE,
) -> tuple[Image.Image, int]:
    """Detect the objects of an image and draw them, each with its class and score; returns their number, too.

    Args:
        model: of `load_detector`.
        config: of the fine-tuning run, with its test images' pipeline and classes.
        pixels: the image, uint8 (H, W, 3).
        min_score: in [0, 1], of the detections that are drawn.
        tile: length of the drawing's longer side, in pixels.

    Raises:
        UserError: the image cannot be read.
    """
    dataset = config.test_dataloader.dataset
    detected = detect(model, dataset.pipeline, image)
    detected = detected[detected.scores >= min_score].cpu()
    detected = detected[detected.scores.argsort(descending=True)]
    labels_and_scores = zip(detected.labels.tolist(), detected.scores.tolist(), strict=True)
    names = [f"{dataset.metainfo['classes'][label]} {score:.2f}" for label, score in labels_and_scores]
    return draw_named(pixels, detected.masks.numpy().astype(np.uint8), names, tile=tile), len(names)


def mean_query_masks(
    config: Config,
    checkpoint: str | Path,
    limit: int | None = None,
    progress: Callable[[Iterable[Any], int], Iterable[Any]] = lambda batches, total: batches,
) -> Activations:
    """Where each query of a detector looks: its mask, averaged over the config's test images (Figure 6).

    Args:
        limit: number of images, the first ones; None: all.
        progress: wraps the batches to iterate over, given their number.

    Raises:
        UserError: the checkpoint is of another model, the detector has no queries, or there are no images.
    """
    model = load_detector(config, checkpoint)

    def masks() -> Iterator[Tensor]:
        loader = image_loader(config, limit)
        for batch in progress(loader, len(loader)):
            images, samples = preprocess(model, batch)
            yield query_masks(model, images, samples)

    return mean_maps(masks())
