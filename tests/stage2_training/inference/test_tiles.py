"""Images in tiles, seen by a detector that finds connected areas of one colour, and small ones in small images only."""

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
from numpy.typing import NDArray
from skimage.measure import label

from stage1_proposals.common.masks import encode_masks, mask_boxes
from stage2_training.inference.prediction import Prediction
from stage2_training.inference.tiles import Tiles, predict_in_tiles

NAMES = {100: "cat", 200: "dog"}
CLASSES = list(NAMES)


def detector(smallest: float = 0.0) -> Callable[[NDArray[np.uint8]], Prediction]:
    """Finds areas that cover at least this part of the picture; the larger, the surer."""

    def predict(pixels: NDArray[np.uint8]) -> Prediction:
        assert max(pixels.shape) > 0
        masks, values = [], []
        for value in CLASSES:
            areas = label(pixels[..., 0] == value)
            masks += [areas == number for number in range(1, areas.max() + 1)]
            values += [value] * areas.max()
        large = [row for row, mask in enumerate(masks) if mask.mean() >= smallest]
        stack = np.array([masks[row] for row in large]).reshape(-1, *pixels.shape[:2])
        rle = encode_masks(stack)
        scores = np.array([mask.mean() for mask in stack], np.float32)
        labels = np.array([CLASSES.index(values[row]) for row in large], np.int64)
        boxes = mask_boxes(rle).astype(np.float32)
        names = [NAMES[values[row]] for row in large]
        found = Prediction(pixels.shape[:2], rle, boxes, scores, labels, names)
        return found.take(np.argsort(-scores))

    return predict


def image(height: int, width: int, *rectangles: tuple[int, int, int, int, int]) -> NDArray[np.uint8]:
    """A black image with rectangles x1, y1, x2, y2 of a colour."""
    pixels = np.zeros((height, width, 3), np.uint8)
    for x1, y1, x2, y2, value in rectangles:
        pixels[y1:y2, x1:x2] = value
    return pixels


def expected(pixels: NDArray[np.uint8]) -> list[bytes]:
    return sorted(rle["counts"] for rle in detector()(pixels).rle)


def counts(found: Prediction) -> list[bytes]:
    return sorted(rle["counts"] for rle in found.rle)


@pytest.mark.parametrize("size", [(300, 100), (257, 333), (160, 80), (1000, 20)])
def test_tiles_cover_the_image_and_overlap_by_a_quarter(size: tuple[int, int]) -> None:
    tiles = Tiles(100).cut(size)
    covered = np.zeros(size, int)
    for x1, y1, x2, y2 in tiles:
        assert (x2 - x1, y2 - y1) == (min(100, size[1]), min(100, size[0]))
        covered[y1:y2, x1:x2] += 1
    assert covered.min() == 1
    for axis in (0, 1):
        starts = sorted({tile[axis] for tile in tiles})
        assert all(second - first <= 75 for first, second in pairwise(starts))


def test_an_image_that_is_not_large_is_seen_as_a_whole() -> None:
    assert Tiles(100).cut((150, 150)) == []
    seen = []

    def predict(pixels: NDArray[np.uint8]) -> Prediction:
        seen.append(pixels.shape)
        return detector()(pixels)

    predict_in_tiles(predict, image(150, 150), Tiles(100))
    assert seen == [(150, 150, 3)]


def test_nothing_is_found_in_an_empty_image() -> None:
    found = predict_in_tiles(detector(), image(200, 300), Tiles(100))
    assert (len(found), found.size, found.masks.shape) == (0, (200, 300), (0, 200, 300))


def test_small_objects_are_found_once_though_several_tiles_show_them() -> None:
    pixels = image(
        200, 300, (10, 10, 18, 18, 100), (78, 78, 90, 90, 100), (150, 60, 160, 70, 200), (92, 80, 99, 86, 200)
    )
    assert len(detector(0.004)(pixels)) == 0
    found = predict_in_tiles(detector(0.004), pixels, Tiles(100))
    assert counts(found) == expected(pixels)
    assert sorted(found.names) == ["cat", "cat", "dog", "dog"]
    assert np.array_equal(found.boxes, mask_boxes(found.rle))
    assert list(found.scores) == sorted(found.scores, reverse=True)


def test_an_object_larger_than_a_tile_is_the_one_that_the_whole_image_shows() -> None:
    pixels = image(200, 300, (20, 20, 250, 180, 100))
    found = predict_in_tiles(detector(), pixels, Tiles(100))
    assert counts(found) == expected(pixels)


def test_an_object_that_every_tile_cuts_is_put_together() -> None:
    pixels = image(100, 400, (30, 40, 220, 60, 100))
    found = predict_in_tiles(detector(0.1), pixels, Tiles(100))
    assert len(detector(0.1)(pixels)) == 0
    assert counts(found) == expected(pixels)
    assert found.boxes.tolist() == [[30, 40, 220, 60]]


def with_junk(score: float, strip: slice) -> Callable[[NDArray[np.uint8]], Prediction]:
    """The detector, all of whose finds score 0.9, and which finds something else in these columns of all it sees."""

    def predict(pixels: NDArray[np.uint8]) -> Prediction:
        found = detector(0.08)(pixels)
        junk = np.zeros((1, *pixels.shape[:2]), bool)
        junk[:, :, strip] = True
        rle = [*found.rle, *encode_masks(junk)]
        scores = np.array([0.9] * len(found) + [score], np.float32)
        labels, names = np.append(found.labels, 0), [*found.names, "cat"]
        return Prediction(found.size, rle, mask_boxes(rle).astype(np.float32), scores, labels, names)

    return predict


@pytest.mark.parametrize("strip", [slice(None), slice(5, 70), slice(40, None)])
def test_what_scores_low_spoils_no_object(strip: slice) -> None:
    """One of the objects is cut in every tile, and too small to be found in the whole image."""
    pixels = image(250, 250, (60, 60, 130, 130, 100), (10, 200, 40, 230, 100))
    found = predict_in_tiles(with_junk(0.01, strip), pixels, Tiles(100))
    assert counts(found.at_least(0.5)) == expected(pixels)


def test_a_whole_object_has_the_score_of_its_best_sight() -> None:
    """The whole image shows it whole, but small and therefore unsure; a tile shows part of it."""
    pixels = image(200, 300, (20, 20, 250, 180, 100))

    def predict(seen: NDArray[np.uint8]) -> Prediction:
        found = detector()(seen)
        score = 0.3 if seen.shape == pixels.shape else 0.8
        return Prediction(
            found.size, found.rle, found.boxes, np.full(len(found), score, np.float32), found.labels, found.names
        )

    found = predict_in_tiles(predict, pixels, Tiles(100))
    assert counts(found) == expected(pixels)
    assert found.scores == pytest.approx([0.8])


def test_a_sliver_at_the_edge_of_a_tile_is_part_of_the_object() -> None:
    """A detector that takes too little of what a tile cuts; of other classes, slivers are objects of their own."""

    def predict(pixels: NDArray[np.uint8]) -> Prediction:
        found = detector()(pixels)
        masks = found.masks
        if pixels.shape == (100, 100, 3):  # tiles, in which all but four rows of a cut object are missed
            masks[:, 34:] &= ~masks[:, :, :1].any(axis=1)[:, None]
        return Prediction(found.size, encode_masks(masks), found.boxes, found.scores, found.labels, found.names)

    pixels = image(100, 250, (60, 30, 90, 60, 100))
    assert counts(predict_in_tiles(predict, pixels, Tiles(100))) == expected(pixels)


def test_objects_of_two_classes_and_neighbours_stay_apart() -> None:
    pixels = image(100, 300, (60, 10, 90, 40, 100), (90, 10, 110, 40, 200), (60, 45, 110, 80, 100))
    found = predict_in_tiles(detector(0.005), pixels, Tiles(100))
    assert counts(found) == expected(pixels)
