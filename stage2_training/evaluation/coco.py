"""COCO mask AP through pycocotools, at full precision and without its printing."""

import contextlib
import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from mmdet.registry import METRICS
from mmengine.evaluator import BaseMetric
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from stage2_training.evaluation.scores import AP_NAMES


def mask_ap(ground_truth: COCO, predictions: Sequence[Mapping[str, Any]], class_ids: Sequence[int]) -> dict[str, float]:
    """AP over all images of `ground_truth`, at most 100 detections each.

    Args:
        predictions: COCO results: `image_id`, `category_id`, `score` and RLE `segmentation`, without `bbox` (with
            it, COCO's sizes would be those of boxes).
        class_ids: the categories that count.

    Returns:
        `AP_NAMES` to values in [0, 1], or -1 where no object of that size exists.
    """
    with contextlib.redirect_stdout(io.StringIO()):
        if predictions:
            detections = ground_truth.loadRes(list(predictions))
        else:  # loadRes needs a first result
            detections = COCO()
            detections.dataset = {**ground_truth.dataset, "annotations": []}
            detections.createIndex()
        evaluation = COCOeval(ground_truth, detections, "segm")
        evaluation.params.catIds = list(class_ids)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return dict(zip(AP_NAMES, map(float, evaluation.stats[:6]), strict=True))


def encode_masks(masks: np.ndarray) -> list[dict[str, Any]]:
    """Boolean masks (N, H, W) to N COCO RLE objects."""
    rles = coco_mask.encode(np.asfortranarray(masks.astype(np.uint8).transpose(1, 2, 0)))
    return [{"size": rle["size"], "counts": rle["counts"].decode()} for rle in rles]


@METRICS.register_module()
class MaskAP(BaseMetric):
    """`mask_ap` as an MMDetection metric.

    Args:
        ann_file: COCO JSON of the evaluated images; the dataset's class names choose the categories.
    """

    default_prefix = "coco"

    def __init__(self, ann_file: str, **kwargs: Any) -> None:
        # MMEngine's name for collecting through the process group; else it would leave files where one works.
        super().__init__(collect_device="gpu", **kwargs)
        with contextlib.redirect_stdout(io.StringIO()):
            self.ground_truth = COCO(ann_file)

    def process(self, data_batch: Any, data_samples: Sequence[dict[str, Any]]) -> None:
        """Keep one image's predictions as RLE."""
        for sample in data_samples:
            predicted = sample["pred_instances"]
            self.results.append(
                {
                    "image_id": sample["img_id"],
                    "labels": predicted["labels"].tolist(),
                    "scores": predicted["scores"].tolist(),
                    "masks": encode_masks(predicted["masks"].cpu().numpy()),
                }
            )

    def compute_metrics(self, results: list[dict[str, Any]]) -> dict[str, float]:
        """AP of everything `process` kept."""
        # MMDetection numbers classes by their categories' order in the file.
        class_ids = self.ground_truth.getCatIds(catNms=list(self.dataset_meta["classes"]))
        predictions = [
            {"image_id": image["image_id"], "category_id": class_ids[label], "score": score, "segmentation": mask}
            for image in results
            for label, score, mask in zip(image["labels"], image["scores"], image["masks"], strict=True)
        ]
        return mask_ap(self.ground_truth, predictions, class_ids)
