"""Large images in overlapping tiles: small objects are seen at the size of training, and none is found twice.

The image is also seen as a whole, which finds what is larger than a tile. Two finds are the same object if they have
the same class and their masks agree in the part of the image that both could see.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import product
from math import ceil

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from stage1_proposals.common.masks import Rle, Size, mask_boxes
from stage2_training.inference.prediction import Prediction

OVERLAP = 0.25  # of neighbouring tiles, at least, as a part of their side
FROM = 1.5  # times the side of a tile: an image with a longer side is cut
SAME = 0.5  # IoU of two masks of one object, where both could be seen; or the share of a cut one that the other covers
MARGIN = 2  # pixels from a tile's edge within which an object is taken for cut

Box = tuple[int, int, int, int]  # x1, y1, x2, y2 in pixels, x2 and y2 exclusive


@dataclass(frozen=True)
class Tiles:
    """How large images are cut.

    Attributes:
        side: of the square tiles, in pixels of the image.
    """

    side: int

    def cut(self, size: Size) -> list[Box]:
        """The tiles of an image of this (height, width), evenly spaced; none of an image that is not large."""
        if max(size) <= FROM * self.side:
            return []
        rows, columns = (self._starts(length) for length in size)
        height, width = size
        return [(x, y, min(x + self.side, width), min(y + self.side, height)) for y, x in product(rows, columns)]

    def _starts(self, length: int) -> list[int]:
        step = self.side * (1 - OVERLAP)
        count = 1 + max(0, ceil((length - self.side) / step))
        return [int(start) for start in np.linspace(0, max(0, length - self.side), count).round()]


@dataclass(frozen=True, eq=False)
class _Find:
    """An object found in a part of the image."""

    row: int
    mask: Rle
    box: NDArray[np.float64]  # of the mask: x1, y1, x2, y2
    score: float
    is_cut: bool  # by the part's edge
    seen: Rle  # the part


def predict_in_tiles(
    predict: Callable[[NDArray[np.uint8]], Prediction], pixels: NDArray[np.uint8], tiles: Tiles
) -> Prediction:
    """The objects of an image that is seen as a whole and, if it is large, in tiles.

    Args:
        predict: finds the objects in the pixels of an image or of a tile.
        pixels: uint8 (H, W, 3).
    """
    height, width = size = pixels.shape[:2]
    parts = [(0, 0, width, height), *tiles.cut(size)]
    found = [predict(np.ascontiguousarray(pixels[y1:y2, x1:x2])) for x1, y1, x2, y2 in parts]
    if len(parts) == 1:
        return found[0]
    placed = [_place(prediction, part, size) for prediction, part in zip(found, parts, strict=True)]
    return _merge(placed, parts, size)


def _place(prediction: Prediction, part: Box, size: Size) -> Prediction:
    """What was found in a part of an image, in the image's pixels."""
    (x, y, *_), (height, width) = part, prediction.size
    rle = []
    for mask in prediction.rle:
        whole = np.zeros(size, np.uint8, order="F")
        whole[y : y + height, x : x + width] = coco_mask.decode(mask)
        rle.append(coco_mask.encode(whole))
    boxes = prediction.boxes + np.array([x, y, x, y], np.float32)
    return replace(prediction, size=size, rle=rle, boxes=boxes)


def _merge(placed: list[Prediction], parts: list[Box], size: Size) -> Prediction:
    """The finds of all parts, those of one object joined.

    The best-scored find of a whole object is kept as it is, with the score of the best find, cut or not. An object that
    is cut in each part is put together. What is cut and lies in a better-scored find is a sliver of it, and left out.
    """
    everything = Prediction(
        size,
        [mask for one in placed for mask in one.rle],
        np.concatenate([one.boxes for one in placed]),
        np.concatenate([one.scores for one in placed]),
        np.concatenate([one.labels for one in placed]),
        [name for one in placed for name in one.names],
    )
    owners = [part for one, part in zip(placed, parts, strict=True) for _ in range(len(one))]
    tight = mask_boxes(everything.rle)
    is_cut = _cut(tight, owners, size)
    kept: list[_Find] = []
    for row in np.argsort(-everything.scores, kind="stable").tolist():
        mask, score = everything.rle[row], float(everything.scores[row])
        find = _Find(row, mask, tight[row], score, bool(is_cut[row]), _filled(owners[row], size))
        of_class = [other for other in kept if everything.labels[other.row] == everything.labels[row]]
        near = _overlapping(of_class, find)
        alike = [other for other in near if _is_same(other, find)]
        if any(not other.is_cut for other in alike) or (not alike and find.is_cut and _is_sliver(find, near)):
            continue
        joined = _joined([*alike, find]) if find.is_cut else replace(find, score=max([score, *_scores(alike)]))
        kept = [other for other in kept if other not in alike] + [joined]
    kept.sort(key=lambda find: -find.score)
    merged = everything.take([find.row for find in kept])
    boxes = merged.boxes.copy()
    for number, find in enumerate(kept):
        if find.mask is not everything.rle[find.row]:
            boxes[number] = find.box
    scores = np.array(_scores(kept), np.float32)
    return replace(merged, rle=[find.mask for find in kept], boxes=boxes, scores=scores)


def _scores(finds: list[_Find]) -> list[float]:
    return [find.score for find in finds]


def _cut(boxes: NDArray[np.float64], owners: list[Box], size: Size) -> NDArray[np.bool_]:
    """Whether each object, of these boxes (N, 4), touches an edge of its part that is not the image's."""
    height, width = size
    edges = np.array(owners).reshape(-1, 4)
    inner = edges != np.array([0, 0, width, height])
    return (inner & (np.abs(boxes - edges) <= MARGIN)).any(axis=1)


def _overlapping(finds: list[_Find], find: _Find) -> list[_Find]:
    """Those of the finds whose masks share a pixel with another's; boxes rule out most of them."""
    boxes = np.array([other.box for other in finds]).reshape(-1, 4)
    meet = (boxes[:, :2] < find.box[2:]).all(axis=1) & (find.box[:2] < boxes[:, 2:]).all(axis=1)
    near = [finds[number] for number in np.flatnonzero(meet)]
    if not near:
        return []
    shared = coco_mask.iou([find.mask], [other.mask for other in near], [0] * len(near))[0]
    return [other for other, share in zip(near, shared, strict=True) if share]


def _is_same(one: _Find, other: _Find) -> bool:
    """Whether two finds agree where both could be seen."""
    common = coco_mask.merge([one.seen, other.seen], intersect=True)
    first, second = (coco_mask.merge([find.mask, common], intersect=True) for find in (one, other))
    return bool(coco_mask.iou([first], [second], [0])[0, 0] >= SAME)


def _is_sliver(find: _Find, better: list[_Find]) -> bool:
    """Whether better finds cover a cut one: of an object at a tile's edge, detectors often take less than they see."""
    return bool(better) and bool(
        coco_mask.iou([find.mask], [other.mask for other in better], [1] * len(better)).max() >= SAME
    )


def _joined(finds: list[_Find]) -> _Find:
    """The object of which these finds are parts, with the row and score of the first one, which is the best."""
    if len(finds) == 1:
        return finds[0]
    mask = coco_mask.merge([find.mask for find in finds])
    return replace(
        finds[0],
        mask=mask,
        box=mask_boxes([mask])[0],
        seen=coco_mask.merge([find.seen for find in finds]),
    )


def _filled(box: Box, size: Size) -> Rle:
    x1, y1, x2, y2 = box
    (rle,) = coco_mask.frPyObjects(np.array([[x1, y1, x2 - x1, y2 - y1]], float), *size)
    return rle
