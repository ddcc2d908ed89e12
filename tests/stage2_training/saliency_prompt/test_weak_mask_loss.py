import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmdet.models.dense_heads import BoxInstMaskHead
from mmengine.logging import MessageHub
from numpy.typing import NDArray
from skimage.color import rgb2lab

from stage2_training.saliency_prompt.weak_mask_loss import (
    WeakMaskLoss,
    color_affinity_loss,
    max_projection_loss,
    mean_projection_loss,
    similar_neighbors,
)

# Straight and diagonal, two cells away, row by row.
OFFSETS = [(y, x) for y in (-2, 0, 2) for x in (-2, 0, 2) if (y, x) != (0, 0)]


@pytest.fixture(autouse=True)
def no_runner() -> None:
    MessageHub.get_current_instance().runtime_info.clear()


def slow_dice(a: NDArray, b: NDArray) -> float:
    return 1 - 2 * (a * b).sum() / ((a**2).sum() + (b**2).sum() + 1e-5)


def slow_projection(probs: NDArray, mask: NDArray, reduce: str) -> float:
    """Of one mask, row by row and column by column."""
    project = {"max": max, "mean": lambda values: sum(values) / len(values)}[reduce]
    rows = [np.array([project(list(row)) for row in plane]) for plane in (probs, mask)]
    columns = [np.array([project(list(column)) for column in plane.T]) for plane in (probs, mask)]
    return slow_dice(*rows) + slow_dice(*columns)


def slow_affinity(logits: NDArray, region: NDArray, similar: NDArray) -> float:
    """Of one mask, pair by pair."""
    probs, losses = 1 / (1 + np.exp(-logits)), []
    height, width = logits.shape
    for y in range(height):
        for x in range(width):
            for number, (dy, dx) in enumerate(OFFSETS):
                if region[y, x] and similar[number, y, x]:
                    p, q = probs[y, x], probs[y + dy, x + dx]
                    losses.append(-math.log(p * q + (1 - p) * (1 - q)))
    return sum(losses) / len(losses) if losses else 0.0


def slow_similar(image: NDArray, size: tuple[int, int]) -> NDArray:
    """Cell by cell, of an image (3, H, W)."""
    height, width = image.shape[1] // 4, image.shape[2] // 4
    cells = np.zeros((height, width, 3), np.uint8)
    for y in range(height):
        for x in range(width):
            cells[y, x] = image[:, 4 * y : 4 * y + 4, 4 * x : 4 * x + 4].mean(axis=(1, 2))
    lab, similar = rgb2lab(cells), np.zeros((8, height, width), bool)
    for y in range(height):
        for x in range(width):
            for number, (dy, dx) in enumerate(OFFSETS):
                v, u = y + dy, x + dx
                if 0 <= v < height and 0 <= u < width and 4 * v + 2 < size[0] and 4 * u + 2 < size[1]:
                    distance = math.sqrt(sum((lab[y, x] - lab[v, u]) ** 2))
                    similar[number, y, x] = math.exp(-distance / 2) >= 0.3
    return similar


@pytest.fixture
def masks() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Logits (3, 12, 16), masks of which the last is empty, and similar neighbours (3, 8, 12, 16)."""
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 3, (3, 12, 16)).astype(np.float32)
    planes = rng.random((3, 12, 16)) < 0.2
    planes[0, :3] = planes[0, :, 12:] = planes[2] = False
    image = rng.integers(100, 130, (3, 48, 64)).astype(np.float32)
    similar = np.stack([slow_similar(image, (44, 60))] * 3)
    assert 0.1 < similar.mean() < 0.9
    return torch.from_numpy(logits), torch.from_numpy(planes).float(), torch.from_numpy(similar)


@pytest.mark.parametrize(("loss", "reduce"), [(max_projection_loss, "max"), (mean_projection_loss, "mean")])
def test_projections(loss, reduce, masks) -> None:
    logits, planes, _ = masks
    probs = logits.sigmoid()
    expected = [slow_projection(p, m, reduce) for p, m in zip(probs.numpy(), planes.numpy(), strict=True)]
    assert loss(probs, planes).tolist() == pytest.approx(expected, rel=1e-5)
    assert loss(planes, planes).tolist()[:2] == pytest.approx([0, 0], abs=1e-4)


def test_projections_see_a_masks_extent_and_not_its_inside() -> None:
    full, ring = torch.ones(1, 6, 6), torch.ones(1, 6, 6)
    ring[:, 1:-1, 1:-1] = 0
    assert max_projection_loss(ring, full).item() == pytest.approx(0, abs=1e-4)
    assert mean_projection_loss(ring, full).item() > 0.1


def test_affinity(masks) -> None:
    logits, planes, similar = masks
    region = planes.amax(1, keepdim=True) * planes.amax(2, keepdim=True)
    expected = [slow_affinity(*(t.numpy() for t in one)) for one in zip(logits, region, similar, strict=True)]
    assert color_affinity_loss(logits, region, similar).tolist() == pytest.approx(expected, rel=1e-5)
    assert expected[2] == 0


def test_affinity_of_extreme_logits_is_finite() -> None:
    """BoxInst's, of MMDetection, gives the same."""
    logits = torch.tensor([[[200.0, -200.0, -200.0, 0.0]]]).expand(1, 4, 4).contiguous().requires_grad_()
    similar = torch.from_numpy(slow_similar(np.zeros((3, 16, 16)), (16, 16)))[None]
    found = color_affinity_loss(logits, torch.ones(1, 4, 4), similar)
    (gradient,) = torch.autograd.grad(found.sum(), logits)
    assert gradient.isfinite().all()
    boxinst = BoxInstMaskHead.get_pairwise_affinity(SimpleNamespace(pairwise_size=3, pairwise_dilation=2), logits)
    assert found.item() == pytest.approx(((boxinst * similar).sum() / similar.sum()).item(), rel=1e-5)
    assert found.item() > 10


def test_similar_neighbors() -> None:
    image = np.random.default_rng(1).integers(90, 140, (3, 48, 64)).astype(np.float32)
    image[:, :, 32:] = image[:, 20:21, 40:41]  # one colour, on the right
    found = similar_neighbors(torch.from_numpy(image), (41, 60))
    assert found.dtype == torch.bool
    assert found.numpy().tolist() == slow_similar(image, (41, 60)).tolist()
    assert 0 < found[:, :10, :8].float().mean() < 1
    assert found[:, 2:8, 10].all()  # whole neighbourhoods of one colour
    assert not found[4, :, 13:].any()  # what is two cells to the right of these is padding


def test_the_parts_are_added_by_their_weights(masks) -> None:
    logits, planes, similar = masks
    target = torch.cat([planes[:, None].byte(), similar.byte()], dim=1)
    region = planes.amax(1, keepdim=True) * planes.amax(2, keepdim=True)
    probs = logits.sigmoid()
    parts = max_projection_loss(probs, planes), mean_projection_loss(probs, planes)
    parts = *parts, color_affinity_loss(logits, region, similar)
    expected = parts[0] + 0.1 * parts[1] + parts[2]  # FreeSOLO's weights
    torch.testing.assert_close(WeakMaskLoss()(logits, target, reduction_override="none"), expected)
    others = 2 * parts[0] + 3 * parts[1] + 5 * parts[2]
    torch.testing.assert_close(WeakMaskLoss(2, 3, 5)(logits, target), others)


@pytest.mark.parametrize(
    ("steps", "step", "share"), [(20_000, 0, 0.001), (20_000, 499, 0.5), (20_000, 5000, 1), (50, 1, 0.4), (5, 0, 1)]
)
def test_the_affinity_warms_up(masks, steps: int, step: int, share: float) -> None:
    logits, planes, similar = masks
    target = torch.cat([planes[:, None].byte(), similar.byte()], dim=1)
    loss = WeakMaskLoss(0, 0, 1)
    whole = loss(logits, target)
    hub = MessageHub.get_current_instance()
    hub.update_info("max_iters", steps)
    hub.update_info("iter", step)
    torch.testing.assert_close(loss(logits, target), share * whole)
