"""Class-agnostic AP and AR of proposals against COCO instance labels."""

import contextlib
import io
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pycocotools.coco import COCO

from stage1_proposals.analysis.statistics import coco_annotations
from stage1_proposals.common import coco_scores as coco_evaluation
from stage1_proposals.common.coco_scores import KINDS, objects_of
from stage1_proposals.common.errors import UserError
from stage1_proposals.images.listing import finder
from stage1_proposals.shards import ImageRecord

SCORES = ("AP", "AP50", "AR@20", "R50@20")


@dataclass(frozen=True)
class Labels:
    """Objects labelled in images, whatever their class.

    Attributes:
        path: of the file they come from.
        images: COCO images.
        annotations: COCO annotations of one class, with masks as RLE.
    """

    path: Path
    images: list[dict[str, Any]]
    annotations: list[dict[str, Any]]

    @classmethod
    def read(cls, path: str | Path) -> "Labels":
        """Labels of a COCO instance JSON.

        Raises:
            UserError: it cannot be read, is not COCO instance JSON, or has no objects in it.
        """
        try:
            data = json.loads(Path(path).read_text(encoding="utf-8"))
            coco = COCO()
            coco.dataset = {"images": data["images"], "annotations": data["annotations"]}
            with contextlib.redirect_stdout(io.StringIO()):
                coco.createIndex()
            annotations = [{**each, "category_id": 1} for each in objects_of(coco, data["annotations"])]
            images = [{key: image[key] for key in ("id", "file_name", "height", "width")} for image in data["images"]]
        except OSError as error:
            raise UserError(f"labels {path}: cannot be read ({error.strerror})") from error
        except Exception as error:  # pycocotools raises nearly anything
            raise UserError(f"labels {path}: not COCO instance JSON ({error!r})") from error
        if all(annotation["iscrowd"] for annotation in annotations):
            raise UserError(f"labels {path}: no objects in it")
        return cls(Path(path), images, annotations)

    @property
    def object_count(self) -> int:
        """Objects, crowds not counted."""
        return sum(not annotation["iscrowd"] for annotation in self.annotations)


def evaluate(records: Iterable[ImageRecord], labels: Labels) -> dict[str, dict[str, float]]:
    """Scores of proposals as if there were one class; crowds are regions where nothing counts, as in COCO.

    Args:
        records: a label's image is found among them by path or, where just one has it, file name. Images without
            labels are left out; the objects of images without a record count as missed.
        labels: what is to be found.

    Returns:
        for `mask` and `box`, `SCORES` to values in [0, 1]: AP over IoU 0.5 to 0.95 and at 0.5, from at most 100
        proposals per image; recall of the 20 best-scored over the same IoUs and at 0.5.

    Raises:
        UserError: none of the labels' images is among the records, or one has another size there.
    """
    find = finder({record.file_name: ((record.height, record.width), coco_annotations(record)) for record in records})
    found = 0
    proposals: list[dict[str, Any]] = []
    for image in labels.images:
        match = find(image["file_name"])
        if match is None:
            continue
        found += 1
        (height, width), annotations = match
        if (height, width) != (image["height"], image["width"]):
            raise UserError(
                f"labels {labels.path}: {image['file_name']} is {image['width']} x {image['height']} pixels there and "
                f"{width} x {height} in the shards"
            )
        proposals += [{**annotation, "image_id": image["id"]} for annotation in annotations]
    if not found:
        raise UserError(f"labels {labels.path}: none of their images is in the shards")
    return {kind: _scores(labels, proposals, kind) for kind in KINDS}


def _scores(labels: Labels, proposals: list[dict[str, Any]], kind: str) -> dict[str, float]:
    found = coco_evaluation.evaluate(labels.images, labels.annotations, proposals, kind, class_ids=[1])
    values = (
        found.average_precision(),
        found.average_precision(0.5),
        found.average_recall(),
        found.average_recall(0.5),
    )
    return dict(zip(SCORES, values, strict=True))
