"""What a shard set holds: distributions, a sample of its images, COCO export."""

from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stage1_proposals.images.decode import ImageError, read_image
from stage1_proposals.shards import ImageRecord, ShardSet

BARS = " ▁▂▃▄▅▆▇█"


@dataclass(frozen=True)
class Distribution:
    """The values of one quantity."""

    name: str
    values: NDArray[np.float64]

    def line(self, bins: int = 24) -> str:
        """One line of text: minimum, quartiles, maximum, and a histogram between minimum and maximum."""
        if not len(self.values):
            return f"{self.name:<16} none"
        low, q1, median, q3, high = np.quantile(self.values, (0, 0.25, 0.5, 0.75, 1))
        counts, _ = np.histogram(self.values, bins=bins)
        heights = np.ceil(counts / counts.max() * (len(BARS) - 1)).astype(int)
        bars = "".join(BARS[height] for height in heights)
        return f"{self.name:<16} {low:8.3g} {q1:8.3g} {median:8.3g} {q3:8.3g} {high:8.3g}  {bars}"


def distributions(records: Iterable[ImageRecord]) -> list[Distribution]:
    """Distributions of masks per image, mask area as a fraction of the image, and score."""
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


def coco_annotations(record: ImageRecord) -> list[dict[str, Any]]:
    """The proposals of one image as COCO annotations of category 1, without ids; masks as compressed RLE."""
    return [
        {
            "image_id": record.image_id,
            "category_id": 1,
            "segmentation": {"size": [record.height, record.width], "counts": counts.decode("ascii")},
            "area": int(area),
            "bbox": [float(x1), float(y1), float(x2 - x1), float(y2 - y1)],
            "iscrowd": 0,
            "score": float(score),
        }
        for counts, area, (x1, y1, x2, y2), score in zip(
            record.rle, record.area, record.bbox, record.score, strict=True
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


def image_of(record: ImageRecord, root: Path) -> NDArray[np.uint8]:
    """A record's image, uint8 (H, W, 3).

    Raises:
        ImageError: the image cannot be read, or its size has changed.
    """
    image = read_image(root / record.file_name)
    height, width = image.shape[:2]
    if (height, width) != (record.height, record.width):
        raise ImageError(f"is {width} x {height} pixels now, but its masks are for {record.width} x {record.height}")
    return image


def sample(
    shards: ShardSet, root: Path, count: int, seed: int
) -> Iterator[tuple[ImageRecord, NDArray[np.uint8] | ImageError]]:
    """A random sample of `count` records, in the set's order, each with its image, uint8 (H, W, 3), or the error.

    Raises:
        ShardError: a shard is damaged or missing.
    """
    chosen = np.random.default_rng(seed).permutation(shards.image_count)[:count]
    for position in sorted(chosen):
        shard, row = shards.locate(int(position))
        with closing(shards.reader(shard)) as reader:
            record = reader.read(row)
        try:
            yield record, image_of(record, root)
        except ImageError as error:
            yield record, error
