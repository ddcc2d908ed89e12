"""Masks as COCO has them: polygons and run lengths, and the boxes and areas of masks."""

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from stage1_proposals.common.errors import quoted
from stage1_proposals.common.run_lengths import read_changes

Size = tuple[int, int]  # height, width in pixels
Rle = dict[str, Any]  # COCO's compressed run lengths: `size` [height, width] and `counts`, bytes

# Numbers of compressed run lengths: up to six characters that another one follows, and the last; see `run_lengths`.
COUNTS = re.compile(rb"(?:[P-o]{0,6}[0-O])*")
MAX_PIXELS = 200_000_000  # of the largest image that is read, `common.system.MAX_PIXELS`


def to_rle(segmentation: Any, size: Size) -> Rle:
    """Compressed run lengths of an annotation's polygons, uncompressed or compressed run lengths.

    Polygons may reach over the image's edges, by its longer side at most.

    Raises:
        ValueError: it is none of these, or does not fit an image of this size; the message says what is wrong with it.
    """
    pixels = size[0] * size[1]
    if pixels > MAX_PIXELS:  # rasterising takes memory and time in proportion
        raise ValueError(f"its image has {pixels:,} pixels, more than {MAX_PIXELS:,}")
    try:
        if isinstance(segmentation, list):
            _check_polygons(segmentation, size)
            return coco_mask.merge(coco_mask.frPyObjects(segmentation, *size))
        if segmentation is None:
            raise ValueError("there is none, and a box alone is no mask")
        if not isinstance(segmentation, dict):
            raise ValueError(f"it is {quoted(str(segmentation))}, neither a list nor run lengths")
        if tuple(segmentation["size"]) != tuple(size):
            raise ValueError(f"its size is {segmentation['size']}, not {list(size)}")
        counts = segmentation["counts"]
        if isinstance(counts, list):
            if not all(type(count) is int and count >= 0 for count in counts):
                raise ValueError("its counts are no whole numbers")
            if sum(counts) != pixels:
                raise ValueError(f"its counts add up to {sum(counts):,}, not to {size[0]} x {size[1]} pixels")
            return coco_mask.frPyObjects(segmentation, *size)
        counts = counts.encode("ascii") if isinstance(counts, str) else counts
        if not COUNTS.fullmatch(counts):
            raise ValueError("its counts are no compressed run lengths")
        read_changes([counts], size)  # pycocotools would take memory for what is missing
    except ValueError:
        raise
    except Exception as error:  # pycocotools raises nearly anything
        raise ValueError(f"it cannot be read ({error!r})") from error
    return {"size": list(size), "counts": counts}


def _check_polygons(polygons: list[Any], size: Size) -> None:
    if not polygons:
        raise ValueError("it is empty, and a box alone is no mask")
    for polygon in polygons:
        coordinates = np.array(polygon)
        if coordinates.dtype.kind not in "iuf" or coordinates.ndim != 1 or not np.isfinite(coordinates).all():
            raise ValueError("a polygon is no list of numbers")
        if len(polygon) < 6 or len(polygon) % 2:
            raise ValueError(f"a polygon has {len(polygon)} numbers; it needs x and y of three or more points")
        # Rasterising a polygon takes memory in proportion to its length. Those of tools reach over an edge by a little.
        height, width = size
        outside = np.maximum(-coordinates.astype(float), coordinates - np.resize([width, height], len(polygon)))
        if outside.max() > max(size):
            raise ValueError(f"the coordinate {polygon[outside.argmax()]:g} is far outside its image")


def to_mask(segmentation: Any, size: Size) -> NDArray[np.uint8]:
    """An annotation's mask, 0 or 1, (height, width).

    Raises:
        ValueError: as `to_rle`.
    """
    return coco_mask.decode(to_rle(segmentation, size))


def encode_masks(masks: NDArray[np.bool_]) -> list[Rle]:
    """Compressed run lengths of boolean masks (N, H, W)."""
    return list(coco_mask.encode(np.asfortranarray(masks.astype(np.uint8).transpose(1, 2, 0))))


def rle_objects(counts: Sequence[bytes], size: Size) -> list[Rle]:
    """Masks of one image, given by the counts of their compressed run lengths."""
    return [{"size": list(size), "counts": one} for one in counts]


def mask_areas(masks: Sequence[Rle]) -> NDArray[np.int64]:
    """Pixels (N,) of masks."""
    # One by one: of more than 255 masks, pycocotools' `area` overflows.
    return np.array([coco_mask.area(mask) for mask in masks], np.int64)


def mask_boxes(masks: Sequence[Rle]) -> NDArray[np.float64]:
    """Tight boxes (N, 4) of masks: x1, y1, x2, y2 in pixels, x2 and y2 one past the last pixel."""
    corner_and_size = np.asarray(coco_mask.toBbox(masks), np.float64).reshape(-1, 4)
    return np.concatenate([corner_and_size[:, :2], corner_and_size[:, :2] + corner_and_size[:, 2:]], axis=1)


def to_xywh(boxes: NDArray[np.floating]) -> NDArray[np.floating]:
    """Boxes (N, 4) x1, y1, x2, y2 as COCO has them: x, y, width, height."""
    return np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1)


def mask_fields(rle: Rle) -> dict[str, Any]:
    """The part of a COCO annotation that follows from its mask: `area`, `bbox` and `segmentation`, JSON-ready."""
    return {
        "area": int(coco_mask.area(rle)),
        "bbox": [int(value) for value in coco_mask.toBbox(rle)],
        "segmentation": {"size": rle["size"], "counts": rle["counts"].decode()},
    }
