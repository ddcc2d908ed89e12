"""COCO AP of masks and boxes at full precision, as a metric for MMDetection's evaluation loops."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from mmdet.registry import METRICS
from mmengine.evaluator import BaseMetric
from numpy.typing import NDArray

from stage1_proposals.common.coco import CocoImage, read_coco
from stage1_proposals.common.coco_scores import evaluate, labelled_objects
from stage1_proposals.common.masks import Rle, encode_masks, mask_areas, mask_boxes, to_xywh
from stage2_training.evaluation.scores import CLASS_AP, METRIC, PREFIXES, RECALL


def score_detections(
    images: Sequence[CocoImage],
    objects: Sequence[Mapping[str, Any]],
    detections: Sequence[Mapping[str, Any]],
    class_ids: Sequence[int],
    class_agnostic: bool = False,
    class_names: Sequence[str] = (),
    kinds: Sequence[str] = tuple(PREFIXES),
) -> dict[str, float]:
    """AP over all images, of at most 100 detections each; the arguments are those of `common.coco_scores.evaluate`.

    Args:
        class_names: of `class_ids`, to have the AP of each class as well.
        kinds: `mask` and `box`, or one of them.

    Returns:
        `SCORE_NAMES` of these kinds to values in [0, 1], or -1 where no object of that size or class exists;
        class-agnostic also `AR@20` and `box_AR@20`, the recall of the 20 best-scored detections per image; else `AP of
        NAME` and `box_AP of NAME` of the classes that are named.
    """
    scores: dict[str, float] = {}
    for kind in kinds:
        prefix = PREFIXES[kind]
        evaluation = evaluate(images, objects, detections, kind, class_ids, class_agnostic)
        scores |= {
            f"{prefix}AP": evaluation.average_precision(),
            f"{prefix}AP50": evaluation.average_precision(0.5),
            f"{prefix}AP75": evaluation.average_precision(0.75),
            **{f"{prefix}AP_{size}": evaluation.average_precision(size=size) for size in "SML"},
        }
        if class_agnostic:
            scores[prefix + RECALL] = evaluation.average_recall()
        elif class_names:
            by_class = zip(class_names, evaluation.class_average_precision(), strict=True)
            scores |= {f"{prefix}{CLASS_AP}{name}": value for name, value in by_class}
    return scores


def detection_boxes(boxes: NDArray[np.floating], masks: Sequence[Rle]) -> NDArray[np.floating]:
    """The boxes (N, 4) of an image's detections: x1, y1, x2, y2.

    Args:
        boxes: (N, 4) as MMDetection predicts them; detectors without boxes predict zeros.
        masks: N of them; their boxes are taken where none are predicted.
    """
    return boxes if boxes.any() else mask_boxes(masks)


@METRICS.register_module()
class MaskAP(BaseMetric):
    """`score_detections` as an MMDetection metric.

    A detection's box is the one that the detector predicts. K-Net, Mask2Former and SOLOv2 predict none; there it is
    the box around the mask. DETRs predict no masks: they have the scores of boxes alone.

    Args:
        ann_file: COCO JSON of the evaluated images; the dataset's class names select the categories.
        class_agnostic: objects of all these classes count as one class, and so do detections, whatever their class.
    """

    default_prefix = METRIC

    def __init__(self, ann_file: str, class_agnostic: bool = False, **kwargs: Any) -> None:
        # "gpu" is MMEngine's name for collecting through the process group; "cpu" leaves files in the working folder.
        super().__init__(collect_device="gpu", **kwargs)
        self.class_agnostic = class_agnostic
        document = read_coco(ann_file, ignore_unknown_images=True, text_ids=True)
        self.images, self.categories = document.images, document.categories
        self.objects = labelled_objects(document)

    def process(self, data_batch: Any, data_samples: Sequence[dict[str, Any]]) -> None:
        """Keep the predictions of images, with masks, if there are any, as RLE."""
        for sample in data_samples:
            predicted = sample["pred_instances"]
            boxes, kept = predicted["bboxes"].cpu().numpy(), {}
            if "masks" in predicted:
                masks = predicted["masks"]
                if not isinstance(masks, list):  # which holds run lengths
                    masks = encode_masks(masks.cpu().numpy())
                boxes = detection_boxes(boxes, masks)
                kept = {"segmentation": masks, "area": mask_areas(masks).tolist()}
            self.results.append(
                {
                    "image_id": sample["img_id"],
                    "labels": predicted["labels"].tolist(),
                    "score": predicted["scores"].tolist(),
                    "bbox": to_xywh(boxes).tolist(),
                    **kept,
                }
            )

    def compute_metrics(self, results: list[dict[str, Any]]) -> dict[str, float]:
        """The scores of the predictions that `process` kept."""
        # MMDetection numbers classes by the order of their categories in the file.
        classes = set(self.dataset_meta["classes"])
        class_ids = [number for number, name in self.categories.items() if name in classes]
        has_masks = any("segmentation" in image for image in results)
        parts = ("score", "bbox", "segmentation", "area") if has_masks else ("score", "bbox")
        detections = [
            {
                "image_id": image["image_id"],
                "category_id": class_ids[0 if self.class_agnostic else label],
                **dict(zip(parts, values, strict=True)),
            }
            for image in results
            for label, *values in zip(image["labels"], *(image[part] for part in parts), strict=True)
        ]
        names = [self.categories[number] for number in class_ids] if len(class_ids) > 1 else []
        kinds = tuple(PREFIXES) if has_masks else ("box",)
        return score_detections(self.images, self.objects, detections, class_ids, self.class_agnostic, names, kinds)
