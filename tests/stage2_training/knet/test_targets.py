from collections.abc import Callable

import numpy as np
import pytest
import torch
from mmdet.structures import DetDataSample
from mmdet.structures.mask import BitmapMasks, PolygonMasks
from mmengine.structures import InstanceData
from pycocotools import mask as coco_mask

from stage2_training.data import RunLengthMasks
from stage2_training.knet.assignment import instance_targets


def test_instances_are_padded_to_the_fullest_image(make_batch: Callable) -> None:
    _, samples = make_batch([2, 0, 3])
    targets = instance_targets(samples, (16, 24))
    assert targets.masks.shape == (3, 3, 16, 24)
    assert targets.counts == [2, 0, 3]
    assert targets.masks[0, 2].sum() == targets.masks[1].sum() == 0
    for i, sample in enumerate(samples):
        assert torch.equal(targets.labels[i, : targets.counts[i]], sample.gt_instances.labels)


def test_masks_are_resized_bilinearly(make_batch: Callable) -> None:
    _, samples = make_batch([3])
    masks = samples[0].gt_instances.masks.masks.astype(np.float32)
    # At a quarter of the size, a bilinear sample is the mean of the four middle pixels of a 4 x 4 block.
    expected = sum(masks[:, dy::4, dx::4] for dy in (1, 2) for dx in (1, 2)) / 4
    targets = instance_targets(samples, (16, 24))
    np.testing.assert_allclose(targets.masks[0].numpy(), expected, atol=1e-6)
    assert 0 < targets.masks.max() <= 1


@pytest.mark.parametrize("count", [1, 3])
def test_a_batch_without_instances_has_one_empty_row(make_batch: Callable, count: int) -> None:
    targets = instance_targets(make_batch([0] * count)[1], (16, 24))
    assert targets.masks.shape == (count, 1, 16, 24)
    assert targets.masks.sum() == 0
    assert targets.labels.shape == (count, 1)
    assert targets.counts == [0] * count


def test_polygons_are_as_good_as_bitmaps() -> None:
    corners = np.array([8, 4, 24, 4, 24, 20, 8, 20], np.float32)
    bitmap = np.zeros((1, 32, 32), np.uint8)
    bitmap[0, 4:20, 8:24] = 1
    masks = []
    for each in (PolygonMasks([[corners]], 32, 32), BitmapMasks(bitmap, 32, 32)):
        sample = DetDataSample()
        sample.gt_instances = InstanceData(labels=torch.zeros(1, dtype=torch.long), masks=each)
        masks.append(instance_targets([sample], (8, 8)).masks)
    assert torch.equal(*masks)


def test_run_lengths_give_the_targets_of_their_bitmaps_and_are_not_made_bitmaps(make_batch: Callable) -> None:
    _, samples = make_batch([2, 0, 3])
    expected = instance_targets(samples, (16, 24))
    for sample in samples:
        bitmaps = sample.gt_instances.masks.masks
        rles = coco_mask.encode(np.asfortranarray(bitmaps.transpose(1, 2, 0))) if len(bitmaps) else []
        sample.gt_instances.masks = RunLengthMasks([rle["counts"] for rle in rles], bitmaps.shape[1:])
    found = instance_targets(samples, (16, 24))
    assert torch.equal(found.masks, expected.masks)
    assert torch.equal(found.labels, expected.labels)
    assert found.counts == expected.counts
    assert not any("masks" in vars(sample.gt_instances.masks) for sample in samples)
