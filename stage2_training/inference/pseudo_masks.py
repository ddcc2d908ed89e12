"""Masks that a trained model predicts, as proposals: a round of self-training."""

import hashlib
import json
from dataclasses import asdict, fields
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import numpy as np
from pycocotools import mask as coco_mask
from pydantic import Field, PositiveInt
from pydantic.dataclasses import dataclass
from torch import Tensor

from stage1_proposals.common.errors import UserError
from stage1_proposals.common.files import file_sha256
from stage1_proposals.common.settings import SETTINGS
from stage1_proposals.generators.base import Batch, ImageInfo, Proposals
from stage1_proposals.generators.seeds import pool_proposals
from stage1_proposals.images.decode import ImageError, read_image
from stage2_training import quiet_imports
from stage2_training.runs.init_options import RUN_CONFIG, check_run

if TYPE_CHECKING:  # MMDetection takes seconds to import; the class is also looked up where nothing is predicted
    from stage2_training.inference.predictor import Predictor

# Masks are predicted for at most so many pixels, those of an image of Cityscapes: a detector puts out up to 100 of them
# at once.
MASK_PIXELS = 1 << 21

Fraction = Annotated[float, Field(ge=0, le=1)]


@dataclass(frozen=True, config=SETTINGS)
class CheckpointGenerator:
    """Predictions of a pre-trained or fine-tuned model of ours, all classes as one.

    A mask's score is the model's. Its seed is the whole mask, as with `merging`: the seed feature is the mean of the
    backbone's features over the mask, L2-normalised, and the seed's centre the mask's centre of gravity. The backbone
    is stage 1's and frozen, whatever the model has made of its own.

    Each image is predicted by itself and as the run sees its test images, or in pre-training its training images. An
    image or tile of more than `MASK_PIXELS` is made smaller first, and its masks are enlarged.

    Attributes:
        checkpoint: the work directory of a run, whose latest checkpoint is meant, or a checkpoint in it. Its content
            and the model's config count as settings, its path does not.
        min_score: predictions with lower scores are dropped.
        nms_iou: so are those whose mask IoU with a better one is larger.
        max_proposals: most proposals per image.

    Raises:
        UserError: no checkpoint is named, there is none, or no run's config beside it.
    """

    NAME: ClassVar[str] = "checkpoint"

    checkpoint: str = ""
    min_score: Fraction = 0.1
    nms_iou: Fraction = 0.5
    max_proposals: PositiveInt = 20

    def __post_init__(self) -> None:
        if not self.checkpoint:
            raise UserError(
                "generator checkpoint needs a trained model: --checkpoint (CHECKPOINT=) names the work directory of a "
                "run, or a checkpoint in it"
            )
        # Resolved here and once: a run that goes on has other latest checkpoints later, in other processes.
        object.__setattr__(self, "checkpoint", str(_find_checkpoint(Path(self.checkpoint))))

    def parameters(self) -> dict[str, Any]:
        """Name, settings and hashes of what decides the predictions.

        Raises:
            UserError: the checkpoint cannot be used, which is found out before any work.
        """
        _, config_sha256 = self._predictor
        return {"name": self.NAME, **asdict(self), "sha256": self._sha256, "config_sha256": config_sha256}

    def __getstate__(self) -> dict[str, Any]:
        """The settings and the checkpoint's hash: every process reads the checkpoint itself."""
        return {field.name: getattr(self, field.name) for field in fields(self)} | {"_sha256": self._sha256}

    @cached_property
    def _sha256(self) -> str:
        return file_sha256(self.checkpoint)

    @cached_property
    def _predictor(self) -> "tuple[Predictor, str]":
        """The model as it sees images, and a hash of the config of both."""
        with quiet_imports():
            from stage2_training.inference.predictor import Predictor
            from stage2_training.runs.work_dir import WorkDir

        config = WorkDir(Path(self.checkpoint).parent).read_config()
        expected = self._sha256  # before the file is read
        predictor = Predictor(config, self.checkpoint, min_score=self.min_score, mask_pixels=MASK_PIXELS, device="cpu")
        if file_sha256(self.checkpoint) != expected:
            raise UserError(f"{self.checkpoint}: has changed since the job began; start it again")
        seen = [predictor.tiles] if predictor.tiles else []
        decides = json.dumps([config.model.to_dict(), predictor.pipeline, *seen], sort_keys=True, default=str)
        return predictor, hashlib.sha256(decides.encode()).hexdigest()

    def __call__(self, batch: Batch) -> list[Proposals | ImageError]:
        return [
            self._propose(batch.image_root, image, features)
            for features, image in zip(batch.features, batch.images, strict=True)
        ]

    def _propose(self, root: str, image: ImageInfo, features: Tensor) -> Proposals | ImageError:
        """The proposals of one image, given its features (D, h, w)."""
        predictor, _ = self._predictor
        try:
            pixels = read_image(Path(root, image.file_name))
        except ImageError as error:  # it is gone since its features were computed
            return error
        predictor.model.to(features.device)
        found = predictor(pixels)
        kept: list[int] = []
        for row, mask in enumerate(found.rle):
            if len(kept) == self.max_proposals:
                break
            better = [found.rle[other] for other in kept]
            overlaps = coco_mask.iou([mask], better, [0] * len(better)) if better else np.zeros(1)
            if coco_mask.area(mask) and np.max(overlaps) <= self.nms_iou:
                kept.append(row)
        best = found.take(kept)
        return pool_proposals(features, [mask["counts"] for mask in best.rle], best.scores.clip(0, 1), image.size)


def _find_checkpoint(source: Path) -> Path:
    """The absolute path of the checkpoint that is meant.

    Raises:
        UserError: there is none, or no run's config beside it.
    """
    with quiet_imports():
        from stage2_training.runs.work_dir import find_checkpoint

    if source.is_dir():
        check_run(source)
    checkpoint = find_checkpoint(source)
    if not (checkpoint.parent / RUN_CONFIG).is_file():
        raise UserError(
            f"{checkpoint}: there is no {RUN_CONFIG} beside it, which would say what model it is of; name the work "
            f"directory of a run, or a checkpoint in it"
        )
    return checkpoint.resolve()
