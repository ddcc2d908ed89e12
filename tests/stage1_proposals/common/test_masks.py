"""Run lengths, boxes and areas of masks."""

import json

import numpy as np

from stage1_proposals.common import masks, system
from stage1_proposals.common.masks import (
    encode_masks,
    mask_areas,
    mask_boxes,
    mask_fields,
    rle_objects,
    to_mask,
    to_xywh,
)

SIZE = (12, 16)


def test_masks_may_be_as_large_as_images() -> None:
    assert masks.MAX_PIXELS == system.MAX_PIXELS


def test_an_image_may_have_more_masks_than_a_byte_counts() -> None:
    areas = np.arange(300)
    drawn = np.arange(20 * 15).reshape(20, 15) < areas[:, None, None]
    rles = encode_masks(drawn)
    assert mask_areas(rles).tolist() == areas.tolist()
    assert mask_boxes(rles)[-1].tolist() == [0, 0, 15, 20]


def test_boxes_and_areas_are_those_of_the_pixels() -> None:
    drawn = np.zeros((2, *SIZE), bool)
    drawn[0, 3:7, 5:6] = True
    rles = encode_masks(drawn)
    assert mask_areas(rles).tolist() == [4, 0]
    assert mask_boxes(rles).tolist() == [[5, 3, 6, 7], [0, 0, 0, 0]]
    assert to_xywh(mask_boxes(rles)).tolist() == [[5, 3, 1, 4], [0, 0, 0, 0]]
    assert mask_boxes([]).shape == (0, 4)
    assert mask_areas([]).shape == (0,)
    assert rle_objects([rle["counts"] for rle in rles], SIZE) == rles
    fields = mask_fields(rles[0])
    assert (fields["area"], fields["bbox"]) == (4, [5, 3, 1, 4])
    assert json.loads(json.dumps(fields)) == fields
    assert np.array_equal(to_mask(fields["segmentation"], SIZE), drawn[0])
