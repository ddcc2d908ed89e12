import itertools
import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mmdet.structures import DetDataSample
from mmdet.structures.mask import BitmapMasks, PolygonMasks
from mmengine.structures import InstanceData
from pycocotools import mask as coco_mask

from stage2_training.data import RunLengthMasks
from stage2_training.knet.assignment import (
    Assignment,
    CostWeights,
    InstanceTargets,
    assign,
    instance_targets,
    match_images,
    matching_cost,
)


def batch(seed: int, counts: list[int], kernels: int = 5, classes: int = 3) -> tuple:
    generator = torch.Generator().manual_seed(seed)
    images, most = len(counts), max(1, *counts)
    masks = (torch.rand(images, most, 4, 6, generator=generator) > 0.5).float()
    labels = torch.randint(0, classes, (images, most), generator=generator)
    logits = torch.randn(images, kernels, 4, 6, generator=generator)
    scores = torch.randn(images, kernels, classes, generator=generator)
    return logits, scores, InstanceTargets(masks, labels, counts)


def pair_cost(logits: torch.Tensor, scores: torch.Tensor, mask: torch.Tensor, label: int) -> float:
    """The cost of one kernel for one instance, pixel by pixel."""
    overlap = p_squares = t_squares = agreement = 0.0
    for x, t in zip(logits.flatten().tolist(), mask.flatten().tolist(), strict=True):
        p = 1 / (1 + math.exp(-x))
        overlap += p * t
        p_squares += p * p
        t_squares += t * t
        agreement += p * t + (1 - p) * (1 - t)
    dice = 2 * overlap / (p_squares + 1e-3 + t_squares + 1e-3)
    q = 1 / (1 + math.exp(-scores[label].item()))
    focal = -0.25 * (1 - q) ** 2 * math.log(q) + 0.75 * q**2 * math.log(1 - q)
    return 2 * focal - 4 * dice - agreement / logits.numel()


def test_cost_is_that_of_each_pair() -> None:
    logits, scores, targets = batch(0, [3, 1])
    cost = matching_cost(logits, scores, targets, CostWeights())
    assert cost.shape == (2, 5, 3)
    for image, count in enumerate(targets.counts):
        for n in range(5):
            for k in range(count):
                label = int(targets.labels[image, k])
                expected = pair_cost(logits[image, n], scores[image, n], targets.masks[image, k], label)
                assert cost[image, n, k].item() == pytest.approx(expected, rel=1e-4)


def test_weights_and_the_missing_class_cost() -> None:
    logits, scores, targets = batch(1, [2, 2])
    without = matching_cost(logits, None, targets, CostWeights(cls=7, dice=0, mask=3))
    torch.testing.assert_close(without, matching_cost(logits, scores, targets, CostWeights(cls=0, dice=0, mask=3)))
    double = matching_cost(logits, scores, targets, CostWeights(cls=4, dice=8, mask=2))
    torch.testing.assert_close(double, 2 * matching_cost(logits, scores, targets, CostWeights()))


def test_cost_is_float32_under_autocast() -> None:
    logits, scores, targets = batch(2, [3, 2])
    expected = matching_cost(logits.bfloat16(), scores.bfloat16(), targets, CostWeights())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        actual = matching_cost(logits.bfloat16(), scores.bfloat16(), targets, CostWeights())
    assert actual.dtype == torch.float32
    assert torch.equal(actual, expected)


@given(st.integers(0, 2**31), st.lists(st.integers(0, 6), min_size=1, max_size=3))
@settings(deadline=None, max_examples=30)
def test_matching_is_the_cheapest_one_to_one(seed: int, counts: list[int]) -> None:
    generator = torch.Generator().manual_seed(seed)
    kernels = 4
    cost = torch.rand(len(counts), kernels, max(1, *counts), generator=generator)
    image, kernel, instance = match_images(cost, counts)
    for i, count in enumerate(counts):
        mine = image == i
        assert int(mine.sum()) == min(kernels, count)
        assert len(set(kernel[mine].tolist())) == len(set(instance[mine].tolist())) == min(kernels, count)
        if count <= kernels:
            options = (zip(rows, range(count), strict=True) for rows in itertools.permutations(range(kernels), count))
        else:
            options = (zip(range(kernels), rows, strict=True) for rows in itertools.permutations(range(count), kernels))
        cheapest = min(sum(cost[i, n, k].item() for n, k in option) for option in options)
        assert cost[i, kernel[mine], instance[mine]].sum().item() == pytest.approx(cheapest, abs=1e-5)


def test_perfect_predictions_find_their_instances() -> None:
    _, _, targets = batch(3, [3, 0, 2])
    kernels = torch.tensor([[4, 0, 2], [0, 0, 0], [1, 3, 0]])
    logits = torch.zeros(3, 5, 4, 6)
    for i, count in enumerate(targets.counts):
        for k in range(count):
            logits[i, kernels[i, k]] = 20 * targets.masks[i, k] - 10
    found = assign(logits, None, targets, CostWeights())
    assert len(found) == 5
    assert {(i, n, k) for i, n, k in zip(*map(torch.Tensor.tolist, vars(found).values()), strict=True)} == {
        (0, 4, 0),
        (0, 0, 1),
        (0, 2, 2),
        (2, 1, 0),
        (2, 3, 1),
    }


def test_nothing_to_match() -> None:
    logits, scores, targets = batch(4, [0, 0])
    found = assign(logits, scores, targets, CostWeights())
    assert isinstance(found, Assignment)
    assert len(found) == 0
    assert found.kernel.dtype == torch.int64


def test_a_diverged_network_is_matched_anyhow() -> None:
    """Its loss says what is wrong; an error here, in one process of several, would leave the others waiting."""
    logits, scores, targets = batch(5, [2, 1])
    assert len(assign(logits * torch.nan, scores, targets, CostWeights())) == 3


@pytest.mark.parametrize(("pairs", "mean"), [(0, 1.0), (1, 1.0), (7, 7.0)])
def test_pairs_are_counted_as_one_at_least(pairs: int, mean: float) -> None:
    assignment = Assignment(*torch.zeros(3, pairs, dtype=torch.long))
    assert len(assignment) == pairs
    torch.testing.assert_close(assignment.mean_pairs, torch.tensor(mean))


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
