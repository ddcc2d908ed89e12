"""A scale with images and labels of the user: what a table of one's own data runs on."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.experiments.scales import Given, Scale, folder_name
from stage1_proposals.common.errors import UserError
from stage1_proposals.common.files import file_sha256
from stage2_training.labels.custom import CustomDatasetOptions

if TYPE_CHECKING:
    from stage1_proposals.images.listing import ImageList


def own_scale(scale: Scale, images: Path | None, labels: Path | None) -> Scale:
    """A scale whose models are pre-trained on images of the user and evaluated on labels of the user.

    Raises:
        UserError: only one of both is given, there are no images, or the labels or their images cannot be used.
    """
    from stage1_proposals.images.listing import list_images
    from stage2_training.config.datasets import open_dataset

    if not images or not labels:
        raise UserError("--images and --labels go together")
    if labels.suffix != ".json":
        raise UserError(f"--labels {labels}: name a COCO instance JSON, in a file with the suffix .json")
    # It looks for all images, classes and objects at once; the evaluations come hours later.
    open_dataset(str(labels), options=CustomDatasetOptions(test_labels=str(labels)))
    given = Given(str(labels), file_sha256(labels))
    return replace(
        scale,
        name=folder_name(str(labels)),
        unlabeled=Given(str(images), _content(list_images(images))),
        datasets=dict.fromkeys(scale.datasets, given),
    )


def _content(images: "ImageList") -> str:
    """A hash of images' names and sizes in bytes: other images may have the same names, as frames of videos do."""
    files = [images.root / name for name in images.names]
    sizes = [file.stat().st_size if file.is_file() else None for file in files]  # stage 1 tells which are missing
    return hashlib.sha256(json.dumps([images.sha256(), sizes]).encode()).hexdigest()
