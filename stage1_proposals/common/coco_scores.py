"""COCO's evaluation of detections, by faster-coco-eval: pycocotools' own in C++, which a test holds equal to it."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import faster_coco_eval
import numpy as np
from numpy.typing import NDArray
from pycocotools.coco import COCO

KINDS = {"mask": "segm", "box": "bbox"}  # and COCO's names for them
MAX_DETECTIONS = (20, 100)  # per image, best-scored first: what recall counts, and precision, as COCO's does
IOUS = np.linspace(0.5, 0.95, 10)
SIZES = ("all", "S", "M", "L")  # of objects, by their area: COCO's limits are 32 x 32 and 96 x 96 pixels


@dataclass(frozen=True)
class Evaluation:
    """What was found; -1 stands for a class without objects of a size.

    Attributes:
        precision: (IoU, 101 recalls, class, size), of at most 100 detections per image.
        recall: (IoU, class, size), of the 20 best-scored.
    """

    precision: NDArray[np.float64]
    recall: NDArray[np.float64]

    def average_precision(self, iou: float | None = None, size: str = "all") -> float:
        """The mean over recalls, classes and IoU thresholds, or at one; -1 when there are no objects of that size."""
        return _mean(_at(self.precision, iou)[..., SIZES.index(size)])

    def average_recall(self, iou: float | None = None) -> float:
        """The mean over classes and IoU thresholds, or at one, objects of all sizes; -1 when there are none."""
        return _mean(_at(self.recall, iou)[..., 0])


def evaluate(
    images: Iterable[Mapping[str, Any]],
    objects: Iterable[Mapping[str, Any]],
    detections: Iterable[Mapping[str, Any]],
    kind: str,
    class_ids: Sequence[int],
    class_agnostic: bool = False,
) -> Evaluation:
    """Compare detections with what is labelled; a crowd is a region where nothing counts.

    Ids of annotations are not read: to pycocotools, a match with the annotation of id 0 is none.

    Args:
        images: COCO images.
        objects: as `objects_of` makes them.
        detections: `image_id`, `category_id`, `score`, `segmentation` as RLE, its `area`, and `bbox` (x, y, w, h).
        kind: of `KINDS`. Boxes count by their own area among the sizes, objects always by that of their mask.
        class_ids: the categories that count.
        class_agnostic: they are all one.
    """
    numbers: dict[Any, int] = {}
    numbered_images = []
    for number, image in enumerate(images, 1):  # their ids may be anything
        numbers[image["id"]] = number
        numbered_images.append({"id": number, "height": image["height"], "width": image["width"]})
    if kind == "box":
        detections = ({**each, "area": each["bbox"][2] * each["bbox"][3]} for each in detections)
    truth, guess = (_index(numbered_images, numbers, annotations) for annotations in (objects, detections))
    evaluation = faster_coco_eval.COCOeval_faster(truth, guess, KINDS[kind])
    evaluation.params.catIds = list(class_ids)
    evaluation.params.useCats = int(not class_agnostic)
    evaluation.params.maxDets = list(MAX_DETECTIONS)
    evaluation.evaluate()
    evaluation.accumulate()
    return Evaluation(evaluation.eval["precision"][..., 1], evaluation.eval["recall"][..., 0])


def objects_of(coco: COCO, annotations: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """COCO annotations of images of `coco`, their masks as RLE.

    Raises:
        Exception: nearly any, if one is malformed.
    """
    return [
        {
            "image_id": annotation["image_id"],
            "category_id": annotation["category_id"],
            "segmentation": coco.annToRLE(annotation),
            "bbox": np.array(annotation["bbox"], float).reshape(4).tolist(),
            "area": float(annotation["area"]),
            "iscrowd": int(annotation.get("iscrowd", 0)),
        }
        for annotation in annotations
    ]


def _index(
    numbered_images: list[dict[str, Any]], numbers: Mapping[Any, int], annotations: Iterable[Mapping[str, Any]]
) -> faster_coco_eval.COCO:
    index = faster_coco_eval.COCO()
    numbered = [
        {**annotation, "id": number, "image_id": numbers[annotation["image_id"]]}
        for number, annotation in enumerate(annotations, 1)
    ]
    index.dataset = {"images": numbered_images, "annotations": numbered, "categories": []}
    index.createIndex()
    return index


def _at(values: NDArray[np.float64], iou: float | None) -> NDArray[np.float64]:
    return values if iou is None else values[[np.abs(IOUS - iou).argmin()]]


def _mean(values: NDArray[np.float64]) -> float:
    values = values[values > -1]
    return float(values.mean()) if values.size else -1.0
