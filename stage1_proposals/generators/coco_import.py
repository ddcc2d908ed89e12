"""Masks made elsewhere: FreeSOLO's, CutLER's or SAM's output, or any COCO-format JSON."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from pycocotools import mask as coco_mask
from torch import Tensor

from stage1_proposals.common.errors import UserError
from stage1_proposals.common.files import file_sha256
from stage1_proposals.generators.base import Batch, ImageInfo, Proposals, areas
from stage1_proposals.generators.seeds import pool_proposals
from stage1_proposals.images.decode import ImageError
from stage1_proposals.images.listing import finder


@dataclass(frozen=True)
class ImportGenerator:
    """Masks from a COCO-format JSON, with seed features computed by our backbone inside each mask.

    Reads a data set (`images` and `annotations`) or a result list (annotations alone). A data set's images are found
    by path or, where it has but one image of that name, by file name; a result list's by `image_id`. An image that the
    file does not know has no proposals. Crowds and empty masks are left out, categories are ignored, a missing
    `score` is 1. Every process reads the file whole, into about ten times its size.

    Attributes:
        file: the JSON. Its content counts as a setting, its place does not.
        max_proposals: most proposals per image, the best-scored first.
        min_score: a proposal's score must reach this.
    """

    NAME: ClassVar[str] = "import"

    file: str = ""
    max_proposals: int = 20
    min_score: float = 0.0

    def __post_init__(self) -> None:
        if not self.file:
            raise UserError("generator import needs a COCO-format JSON: --set file=masks.json")
        if not Path(self.file).is_file():
            raise UserError(f"masks to import {self.file}: no such file")
        if not isinstance(self.max_proposals, int) or self.max_proposals < 1:
            raise UserError(f"max_proposals {self.max_proposals!r}: must be a whole number, 1 or more")
        if not isinstance(self.min_score, int | float):
            raise UserError(f"min_score {self.min_score!r}: must be a number")

    def parameters(self) -> dict[str, Any]:
        self._find  # noqa: B018  what is wrong with the file shows before any work
        return {
            "name": self.NAME,
            "file": str(Path(self.file).resolve()),
            "sha256": file_sha256(self.file),
            "max_proposals": self.max_proposals,
            "min_score": self.min_score,
        }

    def __getstate__(self) -> dict[str, Any]:
        """Every process reads the file for itself."""
        return {"file": self.file, "max_proposals": self.max_proposals, "min_score": self.min_score}

    @cached_property
    def _find(self) -> Callable[[ImageInfo], "_Labels | None"]:
        """What the file holds of an image."""
        try:
            data = json.loads(Path(self.file).read_text(encoding="utf-8"))
            by_id: dict[int, _Labels] = {}
            for annotation in data if isinstance(data, list) else data["annotations"]:
                if not annotation.get("iscrowd"):
                    label = (float(annotation.get("score", 1.0)), annotation["segmentation"])
                    by_id.setdefault(int(annotation["image_id"]), _Labels()).masks.append(label)
            if isinstance(data, list):
                return lambda info: by_id.get(info.image_id)
            by_path: dict[str, _Labels] = {}
            for image in data["images"]:
                labels = by_path[str(image["file_name"])] = by_id.setdefault(int(image["id"]), _Labels())
                labels.size = (int(image["height"]), int(image["width"]))
        except OSError as error:
            raise UserError(f"masks to import {self.file}: cannot be read ({error.strerror})") from error
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(f"masks to import {self.file}: not COCO-format JSON ({error!r})") from error
        find = finder(by_path)
        return lambda info: find(info.file_name)

    @torch.inference_mode()
    def __call__(self, batch: Batch) -> list[Proposals | ImageError]:
        return [self._proposals(image, features) for features, image in zip(batch.features, batch.images, strict=True)]

    def _proposals(self, image: ImageInfo, features: Tensor) -> Proposals | ImageError:
        labels = self._find(image) or _Labels()
        height, width = image.size
        if labels.size not in (None, image.size):
            return ImageError(f"is {height} x {width}, and {'{} x {}'.format(*labels.size)} in {Path(self.file).name}")
        ranked = sorted((mask for mask in labels.masks if mask[0] >= self.min_score), key=lambda mask: -mask[0])
        try:
            rle = [_to_rle(segmentation, image.size) for _, segmentation in ranked]
            solid = areas(rle, image.size).nonzero()[0][: self.max_proposals]
            scores = np.array([ranked[row][0] for row in solid], np.float32).clip(0, 1)
            return pool_proposals(features, [rle[row] for row in solid], scores, image.size)
        except Exception as error:  # pycocotools raises nearly anything, and one mask must not end the job
            return ImageError(f"has a mask in {Path(self.file).name} that cannot be read ({error})")


@dataclass
class _Labels:
    """One image's masks, each with its score, and the size the file gives the image, if any."""

    size: tuple[int, int] | None = None
    masks: list[tuple[float, Any]] = field(default_factory=list)


def _to_rle(segmentation: Any, size: tuple[int, int]) -> bytes:
    """COCO compressed RLE counts of polygons, uncompressed or compressed RLE."""
    if isinstance(segmentation, list):
        return coco_mask.merge(coco_mask.frPyObjects(segmentation, *size))["counts"]
    if tuple(segmentation["size"]) != size:
        raise ValueError(f"its size is {segmentation['size']}")
    counts = segmentation["counts"]
    if isinstance(counts, list):
        return coco_mask.frPyObjects(segmentation, *size)["counts"]
    return counts.encode("ascii")
