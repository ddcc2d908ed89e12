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
