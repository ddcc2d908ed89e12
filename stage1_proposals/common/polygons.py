"""Masks as polygons.

A polygon runs a quarter of a pixel inside the edge of its mask. So it means the same pixels to programs that fill what
has its centre inside (pycocotools), and to those that drop the fractions of coordinates and fill the line, too (OpenCV
and Pillow, and with them Ultralytics and labelme).
"""

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask
from scipy.spatial.distance import cdist

from stage1_proposals.common.masks import Rle

# How far, in pixels, a polygon with fewer points may lie from the outline: the first that keeps enough of the mask.
TOLERANCES = (2.0, 1.0, 0.5, 0.0)
MIN_IOU = 0.99

Mask = NDArray[np.uint8]  # (H, W), 0 or 1
Ring = NDArray[np.float64]  # (P, 2), a closed line through P points x, y, in pixels from the image's corner


def mask_polygons(rle: Rle) -> list[Ring]:
    """One polygon for each connected part of a mask, the largest first; pixels that touch at a corner are connected.

    A part's holes are joined to its outline, see `join`. Points are left out as long as the IoU with the mask is at
    least `MIN_IOU` in both ways of filling.
    """
    left, top, width, height = (int(value) for value in coco_mask.toBbox(rle))
    if not width:
        return []
    mask = np.ascontiguousarray(coco_mask.decode(rle)[top : top + height, left : left + width])
    parts = _trace(mask)
    polygons: list[Ring] = []
    for tolerance in TOLERANCES:
        in_crop = [join([_simplify(ring, tolerance) for ring in part]) for part in parts]
        polygons = [polygon + np.array([left, top]) for polygon in in_crop]
        if _iou_of_centres(polygons, rle) >= MIN_IOU and _iou_with_line(in_crop, mask) >= MIN_IOU:
            break
    return polygons


def join(rings: Sequence[Ring]) -> Ring:
    """One ring through all points of several, joined where they are nearest by lines there and back, without area.

    What lies inside an odd number of the rings lies inside the result: an outline joined with its holes has holes.
    """
    joined = rings[0]
    for ring in rings[1:]:
        here, there = np.unravel_index(cdist(joined, ring).argmin(), (len(joined), len(ring)))
        joined = np.concatenate([joined[: here + 1], ring[there:], ring[: there + 1], joined[here:]])
    return joined


def _trace(mask: Mask) -> list[list[Ring]]:
    """The outline of each part of a mask, the largest first, followed by those of the part's holes."""
    # OpenCV's outlines run through the centres of the outermost pixels: at twice the size, a quarter of a pixel inside.
    doubled = cv2.resize(mask, None, fx=2, fy=2, interpolation=cv2.INTER_NEAREST)
    contours, hierarchy = cv2.findContours(doubled, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    rings = [(contour[:, 0] + 0.5) / 2 for contour in contours]
    outlines: list[int] = hierarchy[0, :, 3].tolist()  # of each hole, the number of the outline around it; else -1
    parts = {number: [rings[number]] for number, outline in enumerate(outlines) if outline < 0}
    for ring, outline in zip(rings, outlines, strict=True):
        if outline >= 0:
            parts[outline].append(ring)
    return sorted(parts.values(), key=lambda part: -cv2.contourArea(part[0].astype(np.float32)))


def _simplify(ring: Ring, tolerance: float) -> Ring:
    """A ring without the points that lie less than `tolerance` pixels off the line through the others."""
    if not tolerance:
        return ring
    fewer = cv2.approxPolyDP(ring[:, None].astype(np.float32), tolerance, True)[:, 0].astype(np.float64)
    return fewer if len(fewer) >= 3 else ring


def _iou_of_centres(polygons: Sequence[Ring], rle: Rle) -> float:
    """The IoU of a mask and of what has its centre inside a polygon, by pycocotools."""
    filled = coco_mask.frPyObjects([polygon.ravel().tolist() for polygon in polygons], *rle["size"])
    return float(coco_mask.iou([coco_mask.merge(filled)], [rle], [0])[0, 0])


def _iou_with_line(polygons: Sequence[Ring], mask: Mask) -> float:
    """The IoU of a mask and of what is inside a polygon or on its line, without fractions of coordinates, by OpenCV."""
    filled = np.zeros_like(mask)
    for polygon in polygons:
        cv2.fillPoly(filled, [polygon.astype(np.int32)], [1])
    return np.count_nonzero(filled & mask) / np.count_nonzero(filled | mask)
