"""What a shard set holds, in numbers: distributions, COCO export, recall against labels."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from stage1_proposals.errors import UserError
from stage1_proposals.shards import ImageRecord

BARS = " ▁▂▃▄▅▆▇█"


@dataclass(frozen=True)
class Distribution:
    """Quantiles and a histogram of one quantity."""

    name: str
    values: NDArray[np.float64]

    def line(self, bins: int = 24) -> str:
        """One printed line: minimum, quartiles, maximum, and a histogram between minimum and maximum."""
        if not len(self.values):
            return f"{self.name:<16} none"
        low, q1, median, q3, high = np.quantile(self.values, (0, 0.25, 0.5, 0.75, 1))
        counts, _ = np.histogram(self.values, bins=bins)
        heights = np.ceil(counts / counts.max() * (len(BARS) - 1)).astype(int)
        bars = "".join(BARS[height] for height in heights)
        return f"{self.name:<16} {low:8.3g} {q1:8.3g} {median:8.3g} {q3:8.3g} {high:8.3g}  {bars}"


def distributions(records: Iterable[ImageRecord]) -> list[Distribution]:
    """Masks per image, area as a share of the image, score."""
    counts: list[int] = []
    areas: list[NDArray[np.float64]] = []
    scores: list[NDArray[np.float32]] = []
    for record in records:
        counts.append(len(record))
        areas.append(record.area / (record.height * record.width))
        scores.append(record.score)
    return [
        Distribution("masks per image", np.array(counts, float)),
        Distribution("area / image", np.concatenate([np.zeros(0), *areas])),
        Distribution("score", np.concatenate([np.zeros(0), *scores])),
    ]


def to_coco(records: Iterable[ImageRecord]) -> dict[str, Any]:
    """A COCO instance data set of one category `object`; masks as compressed RLE, `score` kept."""
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for record in records:
        images.append(
            {"id": record.image_id, "file_name": record.file_name, "height": record.height, "width": record.width}
        )
        for row in range(len(record)):
            x1, y1, x2, y2 = map(float, record.bbox[row])
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": record.image_id,
                    "category_id": 1,
                    "segmentation": {"size": [record.height, record.width], "counts": record.rle[row].decode("ascii")},
                    "area": int(record.area[row]),
                    "bbox": [x1, y1, x2 - x1, y2 - y1],
                    "iscrowd": 0,
                    "score": float(record.score[row]),
                }
            )
    categories = [{"id": 1, "name": "object"}]
    return {"images": images, "annotations": annotations, "categories": categories}


def mask_recall(
    records: Iterable[ImageRecord], labels: str | Path, thresholds: Sequence[float] = (0.5,)
) -> dict[float, float]:
    """Share of labelled objects that some proposal of their photo covers at each mask IoU, class-agnostic.

    Args:
        labels: COCO instance JSON; images are found by path or, failing that, file name. Crowds are left out; photos
            without a record count as missed.

    Raises:
        UserError: the labels are not COCO instance JSON.
    """
    try:
        coco = COCO(str(labels))
    except (OSError, ValueError, KeyError, TypeError, AssertionError) as error:
        raise UserError(f"labels {labels}: not COCO instance JSON") from error
    if not coco.anns:
        raise UserError(f"labels {labels}: no annotations in it")
    by_path = {record.file_name: record for record in records}
    by_name = {Path(name).name: record for name, record in by_path.items()}
    best: list[float] = []
    found = 0
    for image in coco.loadImgs(coco.getImgIds()):
        objects = coco.loadAnns(coco.getAnnIds(imgIds=image["id"], iscrowd=False))
        record = by_path.get(image["file_name"]) or by_name.get(Path(image["file_name"]).name)
        found += record is not None
        if not objects:
            continue
        if record is None or not len(record):
            best += [0.0] * len(objects)
            continue
        truth = [coco.annToRLE(annotation) for annotation in objects]
        best += list(coco_mask.iou(record.coco_rle(), truth, [0] * len(truth)).max(axis=0))
    if not found:
        raise UserError(f"labels {labels}: none of their photos is in the shards")
    values = np.array(best)
    return {threshold: float((values >= threshold).mean()) if best else 0.0 for threshold in thresholds}
