"""A trained detector applied to images: to any, one by one, or to the test images of its config."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from math import sqrt
from pathlib import Path
from typing import Any, overload

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
from stage1_proposals.common.errors import UserError
from stage1_proposals.images.decode import ImageError, read_image, to_pixels
from stage2_training.config.evaluation_config import class_names, image_pipeline
from stage2_training.config.run_settings import LOWEST_SCORE
from stage2_training.evaluation.activations import Activations, mean_maps
from stage2_training.evaluation.coco_metric import detection_boxes
from stage2_training.evaluation.query_masks import query_masks
from stage2_training.inference.prediction import Prediction, rle_at_size
from stage2_training.inference.tiles import Tiles, predict_in_tiles
from stage2_training.knet.detector import KNet
from stage2_training.runs.runner import QuietRunner
from stage2_training.runs.train import build_model
from stage2_training.runs.work_dir import WorkDir, find_checkpoint
from stage2_training.saliency_prompt.detectors import require_masks

MASK_PIXELS = 1 << 24  # a detector puts out up to 100 masks at once, a byte a pixel

AnyImage = str | Path | NDArray[np.uint8] | Image.Image


class Predictor:
    """Finds objects in images with a trained detector: `predictor = Predictor.from_run(...)`, `predictor("a.jpg")`.

    Attributes:
        model: the detector, in evaluation mode.
        names: of its classes.

    Args:
        config: of the run, see `WorkDir.read_config`. A pre-training run finds `object`s, or its clusters.
        checkpoint: the detector's weights.
        min_score: objects with a lower score are left out; unless it is 0, so are those whose mask has no pixel.
        tiles: side of the overlapping tiles in which images are also seen, in pixels; 0: they are seen as a whole
            only; None: as in the run's evaluation.
        mask_pixels: of an image or tile with more pixels, masks are found at a smaller size.
        device: torch device; None: MMEngine's, the GPU if there is one.

    Raises:
        UserError: the checkpoint cannot be read or is of another model, or the model predicts no masks.
    """

    def __init__(
        self,
        config: Config,
        checkpoint: str | Path,
        *,
        min_score: float = LOWEST_SCORE,
        tiles: int | None = None,
        mask_pixels: int = MASK_PIXELS,
        device: str | None = None,
    ) -> None:
        require_masks(config.model.type)
        self.model = load_detector(config, checkpoint, device)
        self.names = class_names(config)
        self.min_score = min_score
        self.tiles = config.get("tiles", 0) if tiles is None else tiles
        self.mask_pixels = mask_pixels
        self.pipeline = image_pipeline(config)

    @classmethod
    def from_run(
        cls, work_dir: str | Path, checkpoint: str | Path | None = None, *, last: bool = False, **settings: Any
    ) -> "Predictor":
        """The predictor of a run.

        Args:
            work_dir: directory of the run.
            checkpoint: a checkpoint of it; None: the one of the best validation AP.
            last: of the run, the last checkpoint instead.
            settings: those of the class.

        Raises:
            UserError: there is no such run or checkpoint, or as the class.
        """
        config = WorkDir(work_dir).read_config()
        return cls(config, find_checkpoint(checkpoint or work_dir, last), **settings)

    @overload
    def __call__(self, image: AnyImage) -> Prediction: ...
    @overload
    def __call__(self, image: list[AnyImage]) -> list[Prediction]: ...
    def __call__(self, image: AnyImage | list[AnyImage]) -> Prediction | list[Prediction]:
        """The objects in an image, or those in each of a list.

        Args:
            image: a path, read as displayed; a Pillow image, whose EXIF orientation is applied; or uint8 (H, W, 3),
                RGB.

        Raises:
            UserError: the image cannot be read.
        """
        if isinstance(image, list):
            return [self(one) for one in image]
        predict = partial(
            find_objects,
            self.model,
            self.pipeline,
            self.names,
            min_score=self.min_score,
            mask_pixels=self.mask_pixels,
        )
        pixels = _pixels(image)
        return predict_in_tiles(predict, pixels, Tiles(self.tiles)) if self.tiles else predict(pixels)


def find_objects(
    model: BaseDetector,
    pipeline: Sequence[dict[str, Any]],
    names: Sequence[str] | None,
    pixels: NDArray[np.uint8],
    min_score: float = 0.0,
    mask_pixels: int = MASK_PIXELS,
) -> Prediction:
    """The objects in an image, or in a tile of one, that is seen as a whole.

    Args:
        model, pipeline: as of `detect`.
        names: of the model's classes; None: objects get none.
        pixels: uint8 (H, W, 3), RGB.
        min_score, mask_pixels: as of `Predictor`.
    """
    size = (pixels.shape[0], pixels.shape[1])
    scale = sqrt(mask_pixels / (size[0] * size[1]))
    if scale < 1:
        width, height = (round(side * scale) for side in size[::-1])
        pixels = np.asarray(Image.fromarray(pixels).resize((width, height), Image.Resampling.BILINEAR))
    if isinstance(model, KNet):  # most of its queries score low, and their masks take a third of the time
        model.test_cfg["min_score"] = min_score
    found = detect(model, pipeline, pixels)
    found = found[found.scores >= min_score].cpu()
    if min_score > 0:
        found = found[found.masks.flatten(1).any(dim=1)]
    found = found[found.scores.argsort(descending=True, stable=True)]
    rle = [rle_at_size(mask, size) for mask in found.masks.numpy()]
    boxes = detection_boxes(found.bboxes.numpy(), rle).astype(np.float32)
    if scale < 1 and found.bboxes.any():
        boxes *= np.array([size[1] / width, size[0] / height] * 2, np.float32)
    labels = found.labels.numpy()
    of_objects = [names[label] if names is not None else "" for label in labels]
    return Prediction(size, rle, boxes, found.scores.numpy(), labels, of_objects)


@torch.no_grad()
def detect(
    model: BaseDetector, pipeline: Sequence[dict[str, Any]], image: str | Path | NDArray[np.uint8]
) -> InstanceData:
    """Detect the objects of an image.

    Args:
        pipeline: transforms of the config's test images.
        image: its path, or its pixels, uint8 (H, W, 3), RGB.

    Returns:
        `masks` bool (R, H, W) of the image's size, `labels`, `scores` and `bboxes` of R objects.

    Raises:
        UserError: the image cannot be read.
    """
    given = {"img": image, "img_path": ""} if isinstance(image, np.ndarray) else {"img_path": str(image)}
    data = Compose(list(pipeline))({**given, "img_id": 0})
    return model.test_step(pseudo_collate([data]))[0].pred_instances


def _pixels(image: AnyImage) -> NDArray[np.uint8]:
    if isinstance(image, Image.Image):
        return to_pixels(image)
    if isinstance(image, np.ndarray):
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            raise UserError(f"the image is {image.dtype} of shape {image.shape}; it must be uint8 (H, W, 3), RGB")
        return image
    try:
        return read_image(image)
    except ImageError as error:
        raise UserError(f"{image}: {error}; {error.advice}") from error


def load_detector(config: Config, checkpoint: str | Path, device: str | None = None) -> BaseDetector:
    """The config's detector with the weights of a checkpoint, in evaluation mode.

    Args:
        device: torch device; None: that of training.

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
