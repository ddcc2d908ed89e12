"""Proposals as labels of one class."""

from stage1_proposals.common.label_files import ImageLabels
from stage1_proposals.shards import ImageRecord


def image_labels(record: ImageRecord, min_score: float = 0.0, best: int | None = None) -> ImageLabels:
    """The proposals of one image as objects of class 0, the best-scored first.

    Args:
        min_score: those with a lower score are left out.
        best: how many at most; None: all.
    """
    rows = [row for row, score in enumerate(record.score.tolist()) if score >= min_score][:best]
    return ImageLabels(
        image_id=record.image_id,
        file_name=record.file_name,
        size=(record.height, record.width),
        counts=[record.rle[row] for row in rows],
        scores=record.score[rows].tolist(),
        classes=[0] * len(rows),
    )
