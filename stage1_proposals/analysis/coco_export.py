"""Proposals as COCO annotations."""

from collections.abc import Iterable
from typing import Any

from stage1_proposals.common.masks import to_xywh
from stage1_proposals.shards import ImageRecord


def coco_annotations(record: ImageRecord) -> list[dict[str, Any]]:
    """The proposals of one image as COCO annotations of category 1, without ids; masks as compressed RLE."""
    return [
        {
            "image_id": record.image_id,
            "category_id": 1,
            "segmentation": {"size": [record.height, record.width], "counts": counts.decode("ascii")},
            "area": int(area),
            "bbox": box,
            "iscrowd": 0,
            "score": float(score),
        }
        for counts, area, box, score in zip(
            record.rle, record.area, to_xywh(record.bbox).tolist(), record.score, strict=True
        )
    ]


def to_coco(records: Iterable[ImageRecord]) -> dict[str, Any]:
    """A COCO instance data set of one category `object`; masks as compressed RLE, `score` kept."""
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for record in records:
        images.append(
            {"id": record.image_id, "file_name": record.file_name, "height": record.height, "width": record.width}
        )
        for annotation in coco_annotations(record):
            annotations.append({"id": len(annotations) + 1} | annotation)
    categories = [{"id": 1, "name": "object"}]
    return {"images": images, "annotations": annotations, "categories": categories}
