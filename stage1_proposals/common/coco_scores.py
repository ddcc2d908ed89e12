"""COCO's average precision and recall, computed by faster-coco-eval, pycocotools' evaluation in C++.

A test holds it equal to pycocotools.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import faster_coco_eval
import numpy as np
from numpy.typing import NDArray

from stage1_proposals.common.coco import ADVICE, CocoDocument, CocoImage, ImageId
from stage1_proposals.common.errors import UserError, quoted
from stage1_proposals.common.masks import Size, mask_fields

KINDS = {"mask": "segm", "box": "bbox"}  # our names and COCO's
MAX_DETECTIONS = (20, 100)  # best-scored per image: for recall, and for precision as COCO has it
IOUS = np.linspace(0.5, 0.95, 10)
SIZES = ("all", "S", "M", "L")  # of objects; COCO's limits are areas of 32 x 32 and 96 x 96 pixels


@dataclass(frozen=True)
class Evaluation:
    """Precision and recall of detections; -1 stands for a class without objects of a size.

    Attributes:
        precision: float64 (IoUs, 101 recalls, classes, sizes), of at most 100 detections per image.
        recall: float64 (IoUs, classes, sizes, `MAX_DETECTIONS`), of so many best-scored detections per image.
    """

    precision: NDArray[np.float64]
    recall: NDArray[np.float64]

    def average_precision(self, iou: float | None = None, size: str = "all") -> float:
        """The mean over recalls, classes and IoU thresholds, or at one threshold; -1 without objects of that size."""
        return _mean(_at(self.precision, iou)[..., SIZES.index(size)])

    def class_average_precision(self) -> list[float]:
        """The mean over recalls and IoU thresholds for each class, of objects of all sizes; -1 without any."""
        return [_mean(self.precision[:, :, row, 0]) for row in range(self.precision.shape[2])]

    def average_recall(self, iou: float | None = None, detections: int = 20) -> float:
        """The mean over classes and IoU thresholds, or at one threshold, of objects of all sizes; -1 without any.

        Args:
            detections: per image, one of `MAX_DETECTIONS`.
        """
        return _mean(_at(self.recall, iou)[:, :, 0, MAX_DETECTIONS.index(detections)])


def evaluate(
    images: Iterable[CocoImage],
    objects: Iterable[Mapping[str, Any]],
    detections: Iterable[Mapping[str, Any]],
    kind: str,
    class_ids: Sequence[int],
    class_agnostic: bool = False,
) -> Evaluation:
    """Compare detections with labelled objects; a crowd is a region where nothing counts.

    Annotations are numbered anew: pycocotools takes a match with the annotation of id 0 for none.

    Args:
        objects: as `labelled_objects` makes them.
        detections: `image_id`, `category_id`, `score`, `segmentation` as RLE, its `area`, and `bbox` (x, y, w, h).
        kind: one of `KINDS`. Detected boxes are sorted into sizes by their own area, objects always by their mask's.
        class_ids: the categories that count.
        class_agnostic: whether all of them count as one class.
    """
    numbers: dict[ImageId, int] = {}
    numbered_images = []
    for number, image in enumerate(images, 1):  # ids may be text
        numbers[image.id] = number
        height, width = image.size or (0, 0)
        numbered_images.append({"id": number, "height": height, "width": width})
    if kind == "box":
        detections = ({**detection, "area": detection["bbox"][2] * detection["bbox"][3]} for detection in detections)
    truth, guess = (_index(numbered_images, numbers, annotations) for annotations in (objects, detections))
    evaluation = faster_coco_eval.COCOeval_faster(truth, guess, KINDS[kind])
    evaluation.params.catIds = list(class_ids)
    evaluation.params.useCats = int(not class_agnostic)
    evaluation.params.maxDets = list(MAX_DETECTIONS)
    evaluation.evaluate()
    evaluation.accumulate()
    return Evaluation(evaluation.eval["precision"][..., 1], evaluation.eval["recall"])


def labelled_objects(document: CocoDocument, sizes: Mapping[ImageId, Size] | None = None) -> list[dict[str, Any]]:
    """The objects of a document's images as `evaluate` takes them, their masks as RLE.

    Boxes and areas that the document does not state are taken from the masks, and so are boxes that do not lie around
    their mask, as in training.

    Args:
        sizes: of the images whose size the document does not state.

    Raises:
        UserError: an image has no size.
        AnnotationError: an object is malformed or, if the document has categories, is of none of them.
    """
    objects = []
    for image in document.images:
        size = image.size or (sizes or {}).get(image.id)
        if size is None:
            raise UserError(f"{document.path}: image {quoted(image.file_name)} has no `height` and `width`; {ADVICE}")
        for annotation in document.annotations_of(image):
            mask = annotation.rle(size)
            fields = mask_fields(mask)
            area = annotation.area or fields["area"]
            # A box cannot lie around a mask without a pixel.
            box = annotation.box_around(fields["bbox"]) if fields["area"] else annotation.bbox or fields["bbox"]
            objects.append(
                {
                    "image_id": image.id,
                    "category_id": document.check_category(annotation) if document.categories else None,
                    "segmentation": mask,
                    "bbox": [float(value) for value in box],
                    "area": float(area),
                    "iscrowd": int(annotation.iscrowd),
                }
            )
    return objects


def _index(
    numbered_images: list[dict[str, Any]], numbers: Mapping[ImageId, int], annotations: Iterable[Mapping[str, Any]]
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
