"""From masks to a shard's row."""

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from stage1_proposals.generators.base import ImageInfo, Proposals, to_record


def proposals(masks: NDArray[np.bool_], dim: int = 3) -> Proposals:
    random = np.random.default_rng(0)
    count = len(masks)
    rle = [mask["counts"] for mask in coco_mask.encode(np.asfortranarray(masks.transpose(1, 2, 0).astype(np.uint8)))]
    return Proposals(
        rle,
        random.random(count, np.float32),
        random.random((count, 2), np.float32),
        random.standard_normal((count, dim), np.float32),
    )


def image(height: int, width: int) -> ImageInfo:
    return ImageInfo(7, "a.jpg", (height, width))


def test_a_record_holds_the_masks_their_tight_boxes_and_areas() -> None:
    masks = np.zeros((2, 20, 30), bool)
    masks[0, 3:7, 5:11] = True
    masks[1, 19, 0] = True
    record = to_record(proposals(masks), image(20, 30))
    assert (record.image_id, record.file_name, record.height, record.width) == (7, "a.jpg", 20, 30)
    assert record.bbox.tolist() == [[5, 3, 11, 7], [0, 19, 1, 20]]
    assert record.area.tolist() == [24, 1]
    assert np.array_equal(record.masks(), masks)


def test_a_record_keeps_scores_seeds_and_features() -> None:
    given = proposals(np.ones((3, 4, 4), bool))
    record = to_record(given, image(4, 4))
    assert np.array_equal(record.score, given.scores)
    assert np.array_equal(record.seed, given.seeds)
    assert np.array_equal(record.feature, given.features.astype(np.float16))


def test_a_records_types_are_the_formats() -> None:
    for count in (0, 2):
        record = to_record(proposals(np.ones((count, 4, 5), bool)), image(4, 5))
        assert len(record) == count
        assert (record.bbox.shape, record.bbox.dtype) == ((count, 4), np.float32)
        assert (record.score.shape, record.score.dtype) == ((count,), np.float32)
        assert (record.area.shape, record.area.dtype) == ((count,), np.int64)
        assert (record.seed.shape, record.seed.dtype) == ((count, 2), np.float32)
        assert (record.feature.shape, record.feature.dtype) == ((count, 3), np.float16)
        assert record.masks().shape == (count, 4, 5)


def test_no_masks_have_no_boxes_and_areas() -> None:
    record = to_record(
        Proposals([], *(np.zeros(shape, np.float32) for shape in (0, (0, 2), (0, 3)))), ImageInfo(1, "a", (4, 5))
    )
    assert (record.bbox.shape, record.bbox.dtype) == ((0, 4), np.float32)
    assert (record.area.shape, record.area.dtype) == ((0,), np.int64)


def test_taking_takes_the_same_rows_of_everything() -> None:
    given = proposals(np.random.default_rng(1).random((4, 3, 3)) > 0.5)
    taken = given.take([2, 0])
    assert len(taken) == 2
    assert taken.rle == [given.rle[2], given.rle[0]]
    for name in ("scores", "seeds", "features"):
        assert np.array_equal(getattr(taken, name), getattr(given, name)[[2, 0]])
