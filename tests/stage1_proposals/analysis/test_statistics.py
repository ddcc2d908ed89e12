"""Distributions, samples of images and COCO export of a handful of proposals."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from stage1_proposals.analysis.prelabels import image_labels
from stage1_proposals.analysis.samples import read_record_image, sample
from stage1_proposals.analysis.statistics import Distribution, distributions
from stage1_proposals.common.errors import UserError
from stage1_proposals.common.label_files import CocoWriter, NewFiles
from stage1_proposals.generators.base import ImageInfo, Proposals, to_record
from stage1_proposals.images.decode import ImageError
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
    writer = CocoWriter(tmp_path, tmp_path, ["object"], NewFiles())
    for record in RECORDS:
        writer.write(image_labels(record))
    writer.close()
    coco = COCO(str(tmp_path / "coco.json"))
    assert coco.getImgIds() == [1, 2]
    first, second = coco.loadAnns(coco.getAnnIds(imgIds=1))
    assert (first["bbox"], first["area"], first["score"]) == ([0, 0, 5, 10], 50, 0.5)
    assert np.array_equal(coco.annToMask(second), RECORDS[0].masks()[1])


@pytest.fixture
def shards(write_shards, make_record, rectangles):
    """Five images in two shards, one mask each."""
    mask = rectangles([(4, 4, 30, 30)], 48, 64)
    records = [make_record(image, f"{image}.png", mask, np.zeros((1, 4))) for image in range(5)]
    return write_shards([records[:3], records[3:]])


def test_as_many_images_as_asked_for_are_chosen_in_order_the_same_for_the_same_seed(shards, tmp_path):
    def chosen(count, seed):
        found = list(sample(shards, tmp_path / "images", count, seed, pytest.fail))
        assert all(image.shape == (48, 64, 3) for _, image in found)
        return [record.image_id for record, _ in found]

    assert chosen(9, 0) == [0, 1, 2, 3, 4]
    some = {seed: chosen(3, seed) for seed in range(6)}
    assert all(len(ids) == 3 and ids == sorted(ids) for ids in some.values())
    assert len({tuple(ids) for ids in some.values()}) > 1
    assert chosen(3, 0) == some[0]


def test_images_that_cannot_be_had_are_left_out_with_the_reason(shards, tmp_path):
    (tmp_path / "images" / "1.png").unlink()
    Image.new("RGB", (64, 64)).save(tmp_path / "images" / "4.png")
    reasons: list[str] = []
    found = [record.file_name for record, _ in sample(shards, tmp_path / "images", 5, 0, reasons.append)]
    assert found == ["0.png", "2.png", "3.png"]
    assert reasons == [
        "not drawn: 1.png does not exist",
        "not drawn: 4.png is 64 x 64 pixels now, but its masks are for 64 x 48",
    ]
    with pytest.raises(UserError, match="no sampled image was found unchanged under"):
        list(sample(shards, tmp_path / "gone", 5, 0, reasons.append))


def test_an_image_is_that_of_its_record(shards, tmp_path):
    record = next(shards.records())
    assert read_record_image(record, tmp_path / "images").shape == (48, 64, 3)
    with pytest.raises(ImageError, match="does not exist"):
        read_record_image(record, tmp_path)
