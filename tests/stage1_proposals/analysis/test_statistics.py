"""Distributions and COCO export of a handful of proposals."""

import json
from pathlib import Path

import numpy as np
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from stage1_proposals.analysis.statistics import Distribution, distributions, to_coco
from stage1_proposals.generators.base import ImageInfo, Proposals, to_record
from stage1_proposals.shards import ImageRecord


def record(image_id: int, *boxes: tuple[int, int, int, int]) -> ImageRecord:
    """An image of 10 x 10 pixels with rectangles (x1, y1, x2, y2) of score 0.5."""
    rle = coco_mask.frPyObjects(
        np.array([(x1, y1, x2 - x1, y2 - y1) for x1, y1, x2, y2 in boxes], float).reshape(-1, 4), 10, 10
    )
    nothing = np.zeros((len(boxes), 2), np.float32)
    scores = np.full(len(boxes), 0.5, np.float32)
    proposals = Proposals([mask["counts"] for mask in rle], scores, nothing, nothing)
    return to_record(proposals, ImageInfo(image_id, f"dir/{image_id}.jpg", (10, 10)))


RECORDS = [record(1, (0, 0, 5, 10), (2, 3, 4, 6)), record(2)]


def test_distributions_are_of_counts_areas_and_scores() -> None:
    found = {distribution.name: distribution.values.tolist() for distribution in distributions(RECORDS)}
    assert found == {"masks per image": [2, 0], "area / image": [0.5, 0.06], "score": [0.5, 0.5]}


def test_a_distributions_line_has_its_quartiles_and_histogram() -> None:
    line = Distribution("score", np.array([0.0, 1.0, 2.0, 3.0, 4.0, 4.0, 4.0])).line(bins=4)
    assert line.split()[:6] == ["score", "0", "1.5", "3", "4", "4"]
    assert line[-4:] == "▂▂▂█"


def test_a_distribution_of_nothing_says_so() -> None:
    assert Distribution("score", np.zeros(0)).line().split() == ["score", "none"]


def test_the_export_is_a_coco_data_set(tmp_path: Path) -> None:
    path = tmp_path / "out.json"
    path.write_text(json.dumps(to_coco(RECORDS)))
    coco = COCO(str(path))
    assert coco.getImgIds() == [1, 2]
    first, second = coco.loadAnns(coco.getAnnIds(imgIds=1))
    assert (first["bbox"], first["area"], first["score"]) == ([0, 0, 5, 10], 50, 0.5)
    assert np.array_equal(coco.annToMask(second), RECORDS[0].masks()[1])
