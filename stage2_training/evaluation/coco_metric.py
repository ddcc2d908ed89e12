"""COCO AP of masks and boxes, at full precision."""

import contextlib
import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from mmdet.registry import METRICS
from mmengine.evaluator import BaseMetric
from numpy.typing import NDArray
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from stage1_proposals.common.coco_scores import evaluate, objects_of
from stage2_training.evaluation.scores import METRIC, PREFIXES, RECALL


def coco_scores(
    images: Sequence[Mapping[str, Any]],
    objects: Sequence[Mapping[str, Any]],
    detections: Sequence[Mapping[str, Any]],
    class_ids: Sequence[int],
    class_agnostic: bool = False,
) -> dict[str, float]:
    """AP over all images, at most 100 detections each; the arguments are those of `coco_evaluation.evaluate`.

    Returns:
        `SCORE_NAMES` to values in [0, 1], or -1 where no object of that size exists; class-agnostic also `AR@20` and
        `box_AR@20`, the recall of an image's 20 best-scored detections.
    """
    scores: dict[str, float] = {}
    for kind, prefix in PREFIXES.items():
        found = evaluate(images, objects, detections, kind, class_ids, class_agnostic)
        scores |= {
            f"{prefix}AP": found.average_precision(),
            f"{prefix}AP50": found.average_precision(0.5),
            f"{prefix}AP75": found.average_precision(0.75),
            **{f"{prefix}AP_{size}": found.average_precision(size=size) for size in "SML"},
        }
        if class_agnostic:
            scores[prefix + RECALL] = found.average_recall()
    return scores


def encode_masks(masks: NDArray[np.bool_]) -> list[dict[str, Any]]:
    """Boolean masks (N, H, W) to N COCO RLE objects."""
    return list(coco_mask.encode(np.asfortranarray(masks.astype(np.uint8).transpose(1, 2, 0))))


def detection_boxes(boxes: NDArray[np.floating], masks: Sequence[dict[str, Any]]) -> NDArray[np.floating]:
    """The boxes (N, 4) of an image's detections as x, y, w, h.

    Args:
        boxes: as MMDetection predicts them: x1, y1, x2, y2; all zero by those detectors that predict none.
        masks: RLE; their boxes are taken where none are predicted.
    """
    if len(masks) and not boxes.any():
        return coco_mask.toBbox(masks)
    return np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1)


@METRICS.register_module()
class MaskAP(BaseMetric):
    """`coco_scores` as an MMDetection metric.

    A detection's box is the one that the detector predicts; K-Net, Mask2Former and SOLOv2 predict none, so it is the
    box around the mask.

    Args:
        ann_file: COCO JSON of the evaluated images; the dataset's class names choose the categories.
        class_agnostic: objects of all these classes are of one, and so are detections, whatever theirs are.
    """

    default_prefix = METRIC

    def __init__(self, ann_file: str, class_agnostic: bool = False, **kwargs: Any) -> None:
        # MMEngine's name for collecting through the process group; else it would leave files where one works.
        super().__init__(collect_device="gpu", **kwargs)
        self.class_agnostic = class_agnostic
        with contextlib.redirect_stdout(io.StringIO()):
            self.ground_truth = COCO(ann_file)
        images, labelled = self.ground_truth.imgs, self.ground_truth.dataset["annotations"]
        self.objects = objects_of(self.ground_truth, (each for each in labelled if each["image_id"] in images))

    def process(self, data_batch: Any, data_samples: Sequence[dict[str, Any]]) -> None:
        """Keep images' predictions, masks as RLE."""
        for sample in data_samples:
            predicted = sample["pred_instances"]
            masks = encode_masks(predicted["masks"].cpu().numpy())
            self.results.append(
                {
                    "image_id": sample["img_id"],
                    "labels": predicted["labels"].tolist(),
                    "scores": predicted["scores"].tolist(),
                    "masks": masks,
                    "areas": coco_mask.area(masks).tolist() if masks else [],
                    "boxes": detection_boxes(predicted["bboxes"].cpu().numpy(), masks).tolist(),
                }
            )

    def compute_metrics(self, results: list[dict[str, Any]]) -> dict[str, float]:
        """The scores of everything `process` kept."""
        # MMDetection numbers classes by their categories' order in the file.
        class_ids = self.ground_truth.getCatIds(catNms=list(self.dataset_meta["classes"]))
        detections = [
            {
                "image_id": image["image_id"],
                "category_id": class_ids[0 if self.class_agnostic else label],
                "score": score,
                "segmentation": mask,
                "area": area,
                "bbox": box,
            }
            for image in results
            for label, score, mask, area, box in zip(
                image["labels"], image["scores"], image["masks"], image["areas"], image["boxes"], strict=True
            )
        ]
        images = self.ground_truth.dataset["images"]
        return coco_scores(images, self.objects, detections, class_ids, self.class_agnostic)
