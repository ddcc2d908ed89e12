"""Masks as COCO has them: polygons and run lengths, and the boxes and areas of masks."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from stage1_proposals.common.errors import quoted

Size = tuple[int, int]  # height, width in pixels
Rle = dict[str, Any]  # COCO's compressed run lengths: `size` [height, width] and `counts`, bytes

MAX_COORDINATE = 100_000  # no image is this large; rasterising such a polygon would take all memory


def to_rle(segmentation: Any, size: Size) -> Rle:
    """Compressed run lengths of an annotation's polygons, uncompressed or compressed run lengths.

    Raises:
        ValueError: it is none of these, or has another size; the message says what is wrong with it.
    """
    try:
        if isinstance(segmentation, list):
            _check_polygons(segmentation)
            return coco_mask.merge(coco_mask.frPyObjects(segmentation, *size))
        if not isinstance(segmentation, dict):
            raise ValueError(f"it is {quoted(str(segmentation))}, neither a list nor run lengths")
        if tuple(segmentation["size"]) != tuple(size):
            raise ValueError(f"its size is {segmentation['size']}, not {list(size)}")
        counts = segmentation["counts"]
        if isinstance(counts, list):
            if not all(type(count) is int and count >= 0 for count in counts) or sum(counts) != size[0] * size[1]:
                raise ValueError(f"its counts are no whole numbers that add up to {size[0]} x {size[1]} pixels")
            return coco_mask.frPyObjects(segmentation, *size)
        rle = {"size": list(size), "counts": counts.encode("ascii") if isinstance(counts, str) else counts}
        coco_mask.area(rle)  # which reads the counts
    except ValueError:
        raise
    except Exception as error:  # pycocotools raises nearly anything
        raise ValueError(f"it cannot be read ({error!r})") from error
    return rle


def _check_polygons(polygons: list[Any]) -> None:
    if not polygons:
        raise ValueError("it has no polygon")
    for polygon in polygons:
        coordinates = np.array(polygon)
        if coordinates.dtype.kind not in "iuf" or coordinates.ndim != 1 or not np.isfinite(coordinates).all():
            raise ValueError("a polygon is no list of numbers")
        if len(polygon) < 6 or len(polygon) % 2:
            raise ValueError(f"a polygon has {len(polygon)} numbers; it needs x and y of three or more points")
        if np.abs(coordinates.astype(float)).max() > MAX_COORDINATE:
            raise ValueError(f"a coordinate exceeds {MAX_COORDINATE:,} pixels")


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
    return np.asarray(coco_mask.area(masks), np.int64).reshape(-1)


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
