"""Class-agnostic AP and AR of proposals against COCO instance labels, through pycocotools' own evaluation."""

import contextlib
import io
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from stage1_proposals.errors import UserError
from stage1_proposals.photo_list import finder
from stage1_proposals.shards import ImageRecord
from stage1_proposals.statistics import coco_annotations

KINDS = {"mask": "segm", "box": "bbox"}  # and pycocotools' names for them
SCORES = ("AP", "AP50", "AR@20", "R50@20")
MAX_PROPOSALS = (20, 100)  # per photo: what recall counts, and AP, as COCO's does


@dataclass(frozen=True)
class Labels:
    """Objects labelled in photos, whatever their class.

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
            coco = _index(data["images"], data["annotations"])
            # Numbered anew: to pycocotools, a match with the annotation of id 0 is none.
            annotations = [
                {
                    "id": number,
                    "image_id": annotation["image_id"],
                    "category_id": 1,
                    "segmentation": coco.annToRLE(annotation),
                    "bbox": np.array(annotation["bbox"], float).reshape(4).tolist(),
                    "area": float(annotation["area"]),
                    "iscrowd": int(annotation["iscrowd"]),
                }
                for number, annotation in enumerate(data["annotations"], 1)
            ]
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
        records: a label's photo is found among them by path or, where just one has it, file name. Photos without
            labels are left out; the objects of photos without a record count as missed.
        labels: what is to be found.

    Returns:
        for `mask` and `box`, `SCORES` to values in [0, 1]: AP over IoU 0.5 to 0.95 and at 0.5, from at most 100
        proposals per photo; recall of the 20 best-scored over the same IoUs and at 0.5.

    Raises:
        UserError: none of the labels' photos is among the records, or one has another size there.
    """
    find = finder({record.file_name: ((record.height, record.width), coco_annotations(record)) for record in records})
    found = 0
    proposals: list[dict[str, Any]] = []
    for image in labels.images:
        photo = find(image["file_name"])
        if photo is None:
            continue
        found += 1
        (height, width), annotations = photo
        if (height, width) != (image["height"], image["width"]):
            raise UserError(
                f"labels {labels.path}: {image['file_name']} is {image['width']} x {image['height']} pixels there and "
                f"{width} x {height} in the shards"
            )
        for annotation in annotations:
            proposals.append(annotation | {"id": len(proposals) + 1, "image_id": image["id"]})
    if not found:
        raise UserError(f"labels {labels.path}: none of their photos is in the shards")
    truth, guess = _index(labels.images, labels.annotations), _index(labels.images, proposals)
    return {kind: _scores(truth, guess, name) for kind, name in KINDS.items()}


def _scores(truth: COCO, guess: COCO, iou_type: str) -> dict[str, float]:
    evaluation = COCOeval(truth, guess, iou_type)
    evaluation.params.useCats = 0
    evaluation.params.maxDets = list(MAX_PROPOSALS)
    evaluation.params.areaRng = evaluation.params.areaRng[:1]  # objects of all sizes
    evaluation.params.areaRngLbl = evaluation.params.areaRngLbl[:1]
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation.evaluate()
        evaluation.accumulate()
    precision = evaluation.eval["precision"][:, :, 0, 0, 1]  # (IoU, recall), of 100 proposals
    recall = evaluation.eval["recall"][:, 0, 0, 0]  # (IoU), of 20
    values = (precision.mean(), precision[0].mean(), recall.mean(), recall[0])
    return dict(zip(SCORES, map(float, values), strict=True))


def _index(images: list[dict[str, Any]], annotations: list[dict[str, Any]]) -> COCO:
    """pycocotools' own form of a data set of one class."""
    coco = COCO()
    coco.dataset = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "object"}]}
    with contextlib.redirect_stdout(io.StringIO()):
        coco.createIndex()
    return coco
