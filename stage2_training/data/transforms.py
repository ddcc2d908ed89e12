"""Transforms that read images as stage 1 does, and keep each mask together with its seed feature.

Between loading and packing, the seed features are in `gt_seed_features`, float32 (L, D); row l belongs to mask l.
Resizing and flipping keep the order of masks. A transform that drops masks must drop the same rows of
`gt_seed_features`, as `BoxesFromMasks` does.
"""

from typing import Any, ClassVar

import numpy as np
import torch
from mmcv.transforms import BaseTransform
from mmdet.datasets.transforms import PackDetInputs
from mmdet.registry import TRANSFORMS
from mmdet.structures.bbox import HorizontalBoxes
from mmdet.structures.mask import BitmapMasks
from numpy.typing import NDArray

from stage1_proposals.common.errors import UserError
from stage1_proposals.images.decode import ImageError, read_image
from stage2_training.data.rle_masks import RunLengthMasks

FEW_PIXELS = 2  # a box with shorter sides may lie between the pixels that resizing or rotation takes
INSTANCE_KEYS = ("gt_bboxes", "gt_bboxes_labels", "gt_masks", "gt_ignore_flags", "gt_seed_features")


@TRANSFORMS.register_module()
class LoadRGBImage(BaseTransform):
    """Reads an image as stage 1 does: RGB, with its EXIF orientation applied.

    Labelled datasets use it, too: their masks and polygons refer to the image as it is displayed, as MMDetection's own
    loader assumes. Where the dataset states the image's size, an image of another size is refused, because masks would
    not fit it.

    Reads `img_path` and, if present, `height` and `width`; adds `img` uint8 (H, W, 3), `img_shape` and
    `ori_shape` (H, W). An `img` that is there already, read by a predictor, is used as it is.

    Raises:
        UserError: the image cannot be read, or its size is not that of its labels.
    """

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        path = results["img_path"]
        try:
            image = results["img"] if "img" in results else read_image(path)
        except ImageError as error:
            raise UserError(
                f"{path}: {error}; put the image back, or set the folder it is in now "
                f"(image_root of shards, data_root of a labelled dataset)"
            ) from error
        size = image.shape[:2]
        expected = (results.get("height", size[0]), results.get("width", size[1]))
        if size != expected:
            raise UserError(
                f"{path}: is {size[1]} x {size[0]} pixels, but its labels are for {expected[1]} x {expected[0]}; "
                f"restore the image or make its labels again"
            )
        results["img"] = image
        results["img_shape"] = results["ori_shape"] = size
        return results


@TRANSFORMS.register_module()
class LoadPseudoLabels(BaseTransform):
    """Turns the proposals of `results["record"]`, with classes `results["labels"]`, into MMDetection's ground truth.

    Adds `gt_bboxes` (L, 4), `gt_bboxes_labels` int64 (L,), `gt_ignore_flags` bool (L,), all False, `gt_masks` (L
    `RunLengthMasks` of the image's size) and `gt_seed_features` float32 (L, D).
    """

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        record = results.pop("record")
        results["gt_bboxes"] = HorizontalBoxes(torch.from_numpy(record.bbox.reshape(-1, 4)))
        results["gt_bboxes_labels"] = results.pop("labels")
        results["gt_ignore_flags"] = np.zeros(len(record), bool)
        results["gt_masks"] = RunLengthMasks(record.rle, (record.height, record.width))
        results["gt_seed_features"] = record.feature.astype(np.float32)
        return results


@TRANSFORMS.register_module()
class RandomTile(BaseTransform):
    """Takes a random square part of an image, with its instances; an image shorter than the tile keeps that side.

    It follows loading, so that later transforms work on fewer pixels. `BoxesFromMasks` drops the instances of which no
    pixel is left.

    Args:
        side: of the tile, in pixels of the image.
    """

    def __init__(self, side: int) -> None:
        self.side = side

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        height, width = results["img"].shape[:2]
        top, left = (np.random.randint(max(0, length - self.side) + 1) for length in (height, width))
        bottom, right = min(height, top + self.side), min(width, left + self.side)
        results["img"] = np.ascontiguousarray(results["img"][top:bottom, left:right])
        results["img_shape"] = size = results["img"].shape[:2]
        results["gt_masks"] = results["gt_masks"].crop(np.array([left, top, right, bottom]))
        results["gt_bboxes"].translate_([-left, -top])
        results["gt_bboxes"].clip_(size)
        return results


@TRANSFORMS.register_module()
class BoxesFromMasks(BaseTransform):
    """Makes each instance's box the tight box of its mask, and drops instances whose mask has no pixel left.

    It follows the last transform that moves pixels. Until then boxes are moved by their corners: rotation makes them
    wider than their masks and clips some to no height or width, which gives Mask R-CNN a loss of NaN.

    A mask of a few pixels may lose them all when it is resized or rotated to the nearest pixels, while its box is still
    in the image: it keeps the pixel in the middle of the box. A mask that was rotated out of the image is dropped. An
    image that loses all its masks is kept.

    Sets `gt_bboxes` (L, 4): x1, y1, x2, y2 in pixels, x2 and y2 exclusive.
    """

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        if "gt_bboxes" in results:
            results["gt_masks"] = _keep_few_pixels(results["gt_masks"], results["gt_bboxes"].numpy())
        boxes = results["gt_masks"].get_bboxes("hbox")
        results["gt_bboxes"] = boxes
        keep = boxes.areas.numpy() > 0
        if not keep.all():
            for key in INSTANCE_KEYS:
                if key in results:
                    results[key] = results[key][keep]
        return results


def _keep_few_pixels(masks: BitmapMasks, boxes: NDArray[Any]) -> BitmapMasks:
    """The masks, of which each one without pixels gets that in the middle of its box, if the box has area and is small.

    Args:
        masks: L masks.
        boxes: (L, 4), which have gone the way of the masks.
    """
    sides = boxes[:, 2:] - boxes[:, :2]
    vanished = (sides > 0).all(axis=1) & (sides < FEW_PIXELS).all(axis=1)
    vanished &= masks.areas == 0
    if not vanished.any():
        return masks
    bitmaps = masks.masks.copy()
    x, y = ((boxes[vanished, :2] + boxes[vanished, 2:]) / 2).astype(int).T
    bitmaps[np.flatnonzero(vanished), y.clip(0, masks.height - 1), x.clip(0, masks.width - 1)] = 1
    return BitmapMasks(bitmaps, masks.height, masks.width)


@TRANSFORMS.register_module()
class PackPseudoLabels(PackDetInputs):
    """MMDetection's packing; `gt_instances` additionally gets `seed_features`, float32 (L, D)."""

    mapping_table: ClassVar[dict[str, str]] = {**PackDetInputs.mapping_table, "gt_seed_features": "seed_features"}
