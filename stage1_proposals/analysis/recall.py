"""Class-agnostic AP and AR of proposals against COCO instance labels."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from stage1_proposals.analysis.prelabels import image_labels
from stage1_proposals.common import coco_scores
from stage1_proposals.common.coco import CocoDocument, CocoImage, ImageId, read_coco
from stage1_proposals.common.coco_scores import KINDS, labelled_objects
from stage1_proposals.common.errors import UserError, quoted
from stage1_proposals.common.image_paths import image_finder, repeated_names
from stage1_proposals.common.label_files import coco_annotations
from stage1_proposals.common.masks import Size
from stage1_proposals.generators.registry import describe_generator
from stage1_proposals.shards import ImageRecord, ShardSet

SCORES = ("AP", "AP50", "AP75", "AR@20", "AR@100")
# Of a table of shard sets, whose first `NAMES` columns are names.
HEADING = (
    *("generator", "backbone", "short side", "images", "per image"),
    *(f"{kind} {score}" for kind in KINDS for score in SCORES),
)
NAMES = 2


@dataclass(frozen=True)
class Labels:
    """Objects labelled in images, as objects of one class.

    Attributes:
        document: the file that they come from.
        object_count: number of objects without crowds.
    """

    document: CocoDocument
    object_count: int

    @classmethod
    def read(cls, path: str | Path) -> "Labels":
        """Labels of a COCO instance JSON.

        Raises:
            UserError: it cannot be read, is not COCO instance JSON, or has no objects in it.
        """
        try:
            document = read_coco(path, categories=False, text_ids=True)
            objects = 0
            for image in document.images:
                for annotation in document.annotations_of(image):
                    objects += not annotation.iscrowd
                    if image.size is not None:
                        annotation.rle(image.size)  # a malformed mask is refused before shards are read
        except UserError as error:
            raise UserError(f"labels {error}") from error
        if not objects:
            raise UserError(f"labels {path}: no objects in it")
        return cls(document, objects)

    @property
    def path(self) -> Path:
        """The file that they come from."""
        return self.document.path

    def describe(self) -> str:
        """A line above a table of scores."""
        return f"Class-agnostic, in percent: {self.object_count} objects in {len(self.images)} images of {self.path}"

    @property
    def images(self) -> tuple[CocoImage, ...]:
        """The labelled images."""
        return self.document.images


def evaluate(records: Iterable[ImageRecord], labels: Labels) -> dict[str, dict[str, float]]:
    """Scores of proposals against objects of one class; crowds are regions where nothing counts, as in COCO.

    Args:
        records: a labelled image is found among them by path or, where only one image on each side has it, by file
            name. Images without labels are left out; the objects of images without a record count as missed.
        labels: the objects that proposals should find.

    Returns:
        for `mask` and `box`, `SCORES` to values in [0, 1]: AP over IoU 0.5 to 0.95, at 0.5 and at 0.75, from at most
        100 proposals per image; recall of the 20 and the 100 best-scored proposals over the same IoUs.

    Raises:
        UserError: no record is of a labelled image, one states another size for it, or an object is malformed.
    """
    proposed = map(image_labels, records)
    by_path = {image.file_name: (image.size, coco_annotations(image)) for image in proposed}
    find = image_finder(by_path, repeated_names(image.file_name for image in labels.images))
    proposals: list[dict[str, Any]] = []
    sizes: dict[ImageId, Size] = {}
    for image in labels.images:
        record = find(image.file_name)
        if record is None:
            continue
        size, annotations = record
        sizes[image.id] = size
        if image.size not in (None, size):
            stated, recorded = (" x ".join(map(str, reversed(sides))) for sides in (image.size, size))
            raise UserError(
                f"labels {labels.path}: {quoted(image.file_name)} is {stated} pixels in the labels and {recorded} in "
                f"the shards"
            )
        proposals += [{**annotation, "image_id": image.id} for annotation in annotations]
    if not sizes:
        names = ", ".join(quoted(name) for name in [image.file_name for image in labels.images][:1] + [*by_path][:1])
        raise UserError(f"labels {labels.path}: none of their images is in the shards; their names differ: {names}")
    try:
        objects = [{**one, "category_id": 1} for one in labelled_objects(labels.document, sizes)]
    except UserError as error:
        raise UserError(f"labels {error}") from error
    images = [replace(image, size=image.size or sizes.get(image.id)) for image in labels.images]
    return {kind: _scores(images, objects, proposals, kind) for kind in KINDS}


def table_row(shard_set: ShardSet, labels: Labels) -> list[str]:
    """What a shard set is, and its scores in percent, under `HEADING`; raises as `evaluate`."""
    scores, generator = evaluate(shard_set.records(), labels), shard_set.request.generator
    facts = [describe_generator(generator), shard_set.backbone.name, str(generator["short_side"])]
    counts = [str(shard_set.image_count), f"{shard_set.proposal_count / shard_set.image_count:.1f}"]
    return facts + counts + [f"{100 * scores[kind][name]:.2f}" for kind in KINDS for name in SCORES]


def _scores(
    images: Sequence[CocoImage], objects: list[dict[str, Any]], proposals: list[dict[str, Any]], kind: str
) -> dict[str, float]:
    evaluation = coco_scores.evaluate(images, objects, proposals, kind, class_ids=[1])
    values = (
        evaluation.average_precision(),
        evaluation.average_precision(0.5),
        evaluation.average_precision(0.75),
        evaluation.average_recall(),
        evaluation.average_recall(detections=100),
    )
    return dict(zip(SCORES, values, strict=True))
