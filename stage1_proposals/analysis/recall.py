"""Class-agnostic AP and AR of proposals against COCO instance labels."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stage1_proposals.analysis.coco_export import coco_annotations
from stage1_proposals.common import coco_scores
from stage1_proposals.common.coco import CocoImage, read_coco
from stage1_proposals.common.coco_scores import KINDS, labelled_objects
from stage1_proposals.common.errors import UserError
from stage1_proposals.common.image_paths import image_finder
from stage1_proposals.shards import ImageRecord

SCORES = ("AP", "AP50", "AR@20", "R50@20")


@dataclass(frozen=True)
class Labels:
    """Objects labelled in images, as objects of one class.

    Attributes:
        path: the file that they come from.
        images: the labelled images.
        objects: as `coco_scores.evaluate` takes them.
    """

    path: Path
    images: tuple[CocoImage, ...]
    objects: list[dict[str, Any]]

    @classmethod
    def read(cls, path: str | Path) -> "Labels":
        """Labels of a COCO instance JSON.

        Raises:
            UserError: it cannot be read, is not COCO instance JSON, or has no objects in it.
        """
        try:
            document = read_coco(path, categories=False, text_ids=True)
            objects = [{**one, "category_id": 1} for one in labelled_objects(document)]
        except UserError as error:
            raise UserError(f"labels {error}") from error
        if all(one["iscrowd"] for one in objects):
            raise UserError(f"labels {path}: no objects in it")
        return cls(document.path, document.images, objects)

    @property
    def object_count(self) -> int:
        """Number of objects without crowds."""
        return sum(not one["iscrowd"] for one in self.objects)


def evaluate(records: Iterable[ImageRecord], labels: Labels) -> dict[str, dict[str, float]]:
    """Scores of proposals against objects of one class; crowds are regions where nothing counts, as in COCO.

    Args:
        records: a labelled image is found among them by path or, where only one image has it, by file name. Images
            without labels are left out; the objects of images without a record count as missed.
        labels: the objects that proposals should find.

    Returns:
        for `mask` and `box`, `SCORES` to values in [0, 1]: AP over IoU 0.5 to 0.95 and at 0.5, from at most 100
        proposals per image; recall of the 20 best-scored proposals over the same IoUs and at 0.5.

    Raises:
        UserError: no record is of a labelled image, or one states another size for it.
    """
    find = image_finder(
        {record.file_name: ((record.height, record.width), coco_annotations(record)) for record in records}
    )
    proposals: list[dict[str, Any]] = []
    matched_images = 0
    for image in labels.images:
        record = find(image.file_name)
        if record is None:
            continue
        matched_images += 1
        size, annotations = record
        assert image.size is not None  # `labelled_objects` has refused images without a size
        if image.size != size:
            stated, recorded = (" x ".join(map(str, reversed(sides))) for sides in (image.size, size))
            raise UserError(
                f"labels {labels.path}: {image.file_name} is {stated} pixels in the labels and {recorded} in the shards"
            )
        proposals += [{**annotation, "image_id": image.id} for annotation in annotations]
    if not matched_images:
        raise UserError(f"labels {labels.path}: none of their images is in the shards")
    return {kind: _scores(labels, proposals, kind) for kind in KINDS}


def _scores(labels: Labels, proposals: list[dict[str, Any]], kind: str) -> dict[str, float]:
    evaluation = coco_scores.evaluate(labels.images, labels.objects, proposals, kind, class_ids=[1])
    values = (
        evaluation.average_precision(),
        evaluation.average_precision(0.5),
        evaluation.average_recall(),
        evaluation.average_recall(0.5),
    )
    return dict(zip(SCORES, values, strict=True))
