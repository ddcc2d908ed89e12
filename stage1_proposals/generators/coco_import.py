"""Masks made by other programs, as FreeSOLO, CutLER and SAM, from any COCO JSON."""

import logging
from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict, field
from dataclasses import dataclass as plain_dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from pydantic import PositiveInt
from pydantic.dataclasses import dataclass
from torch import Tensor

from stage1_proposals.common.coco import AnnotationError, CocoAnnotation, ImageId, read_masks
from stage1_proposals.common.errors import UserError, quoted
from stage1_proposals.common.files import file_sha256
from stage1_proposals.common.image_paths import image_finder, repeated_names
from stage1_proposals.common.masks import Size, mask_areas
from stage1_proposals.common.settings import SETTINGS
from stage1_proposals.generators.base import Batch, ImageInfo, Proposals
from stage1_proposals.generators.seeds import pool_proposals
from stage1_proposals.images.decode import ImageError

logger = logging.getLogger(__name__)


@dataclass(frozen=True, config=SETTINGS)
class ImportGenerator:
    """Masks from a COCO JSON, with seed features that our backbone computes inside each mask.

    Reads a data set (`images` and `annotations`) or a list of results (annotations alone). The images of a data set
    are found by path or, where only one image on each side has it, by file name; those of a list of results by
    `image_id`. An image that the file does not name has no proposals; a file that names none of the images is refused,
    and so is a data set of whose annotations none is of its images. If only some are not, one line counts them.
    Crowds and empty masks are left out, categories are ignored, a missing `score` counts as 1. Every process reads the
    whole file, which takes about ten times its size in memory.

    Attributes:
        file: the JSON. Its content counts as a setting, its path does not.
        max_proposals: highest number of proposals per image, the best-scored first.
        min_score: lowest score of a proposal.
    """

    NAME: ClassVar[str] = "import"

    file: str = ""
    max_proposals: PositiveInt = 20
    min_score: float = 0.0

    def __post_init__(self) -> None:
        if not self.file:
            raise UserError("generator import needs a COCO-format JSON: --set file=masks.json")
        if not Path(self.file).is_file():
            raise UserError(f"masks to import {self.file}: no such file")

    def parameters(self) -> dict[str, Any]:
        self._file  # noqa: B018  a file that cannot be used is refused before any work
        file = {"file": str(Path(self.file).resolve()), "sha256": file_sha256(self.file)}
        return {"name": self.NAME, **asdict(self), **file}

    def check_images(self, images: Mapping[str, int]) -> None:
        """Get to know the job's images, before any work: paths to ids. What is left out of the file is logged.

        Raises:
            UserError: the file names none of them.
        """
        self.__dict__["_ambiguous"] = repeated_names(images)
        find = self._finder()
        if not any(find(ImageInfo(number, path, (0, 0))) for path, number in images.items()):
            by_path, by_id, _ = self._file
            key, theirs = ("names", by_path) if by_path is not None else ("ids", by_id)
            ours = images if by_path is not None else images.values()
            raise UserError(
                f"masks to import {self.file}: has masks of none of the {len(images):,} images; its {key} are "
                f"{_first(theirs)}, the images' are {_first(ours)}"
            )
        for remark in self._file[2]:
            logger.warning("masks to import %s", remark)

    def __getstate__(self) -> dict[str, Any]:
        """The settings and what is known of the job's images: every process reads the file itself."""
        return asdict(self) | {"_ambiguous": self.__dict__.get("_ambiguous", frozenset())}

    @cached_property
    def _find(self) -> Callable[[ImageInfo], "_ImportedMasks | None"]:
        return self._finder()

    def _finder(self) -> Callable[[ImageInfo], "_ImportedMasks | None"]:
        """How to find an image's masks in the file."""
        by_path, by_id, _ = self._file
        if by_path is None:
            return lambda info: by_id.get(info.image_id) or by_id.get(str(info.image_id))
        find = image_finder(by_path, self.__dict__.get("_ambiguous", frozenset()))
        return lambda info: find(info.file_name)

    @cached_property
    def _file(self) -> "tuple[dict[str, _ImportedMasks] | None, dict[ImageId, _ImportedMasks], tuple[str, ...]]":
        """The file's masks by the paths of images, None for a list of results; by their ids; and what is left out."""
        try:
            images, annotations, remarks = read_masks(self.file)
            by_id: dict[ImageId, _ImportedMasks] = {}
            for annotation in annotations:
                if annotation.segmentation is None:
                    raise AnnotationError(f"{annotation.where}: has no `segmentation`")
                if not annotation.iscrowd:
                    by_id.setdefault(annotation.image_id, _ImportedMasks()).masks.append(annotation)
        except UserError as error:
            raise UserError(f"masks to import {error}") from error
        if images is None:
            return None, by_id, remarks
        by_path: dict[str, _ImportedMasks] = {}
        for image in images:
            masks = by_path[image.file_name] = by_id.setdefault(image.id, _ImportedMasks())
            masks.size = image.size
        return by_path, by_id, remarks

    @torch.inference_mode()
    def __call__(self, batch: Batch) -> list[Proposals | ImageError]:
        return [self._proposals(image, features) for features, image in zip(batch.features, batch.images, strict=True)]

    def _proposals(self, image: ImageInfo, features: Tensor) -> Proposals | ImageError:
        imported = self._find(image) or _ImportedMasks()
        name, (height, width) = Path(self.file).name, image.size
        if imported.size not in (None, image.size):
            return ImageError(f"is {height} x {width}, and {'{} x {}'.format(*imported.size)} in {name}")
        scored = [(1.0 if mask.score is None else mask.score, mask) for mask in imported.masks]
        ranked = sorted((one for one in scored if one[0] >= self.min_score), key=lambda one: -one[0])
        try:
            rles = [mask.rle(image.size) for _, mask in ranked]
        except AnnotationError as error:  # one mask must not end the job
            return ImageError(f"has a mask that cannot be used: {error.what}")
        solid = mask_areas(rles).nonzero()[0][: self.max_proposals]
        scores = np.array([ranked[row][0] for row in solid], np.float32).clip(0, 1)
        return pool_proposals(features, [rles[row]["counts"] for row in solid], scores, image.size)


@plain_dataclass
class _ImportedMasks:
    """One image's masks, and the size that the file states for the image, if any."""

    size: Size | None = None
    masks: list[CocoAnnotation] = field(default_factory=list)


def _first(values: Collection[Any]) -> str:
    shown = [quoted(str(value)) for value in list(values)[:2]]
    return ", ".join(shown) + (", ..." if len(values) > len(shown) else "") or "none"
