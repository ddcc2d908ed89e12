"""MMCV's operators in PyTorch beside slow references, and beside MMCV's compiled ones where those are installed."""

import importlib
import math
from types import ModuleType

import mmcv.ops
import pytest
import torch
from mmcv.ops import RoIAlign, batched_nms, nms, sigmoid_focal_loss
from mmcv.ops.multi_scale_deform_attn import MultiScaleDeformableAttnFunction
from torch import Tensor

from stage2_training.models import mmcv_operators

# MMCV's modules whose operators are replaced; each holds the operators as `ext_module`.
USERS = [importlib.import_module(f"mmcv.ops.{name}") for name in ("nms", "roi_align", "focal_loss")]
USERS.append(importlib.import_module("mmcv.ops.multi_scale_deform_attn"))
INSTALLED: ModuleType = importlib.import_module("mmcv._ext")
COMPILED = [INSTALLED] if INSTALLED.__file__ and INSTALLED.__file__.endswith(".so") else []


@pytest.fixture(params=[mmcv_operators, *COMPILED], ids=lambda module: module.__name__.rpartition(".")[2])
def operators(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The operators that MMCV calls: ours, and where they are there, the compiled ones."""
    for user in USERS:
        monkeypatch.setattr(user, "ext_module", request.param)
    return request.param


def slow_nms(boxes: list[list[float]], scores: list[float], threshold: float, offset: int) -> list[int]:
    def iou(one: list[float], other: list[float]) -> float:
        width = min(one[2], other[2]) - max(one[0], other[0]) + offset
        height = min(one[3], other[3]) - max(one[1], other[1]) + offset
        both = max(width, 0) * max(height, 0)
        areas = ((box[2] - box[0] + offset) * (box[3] - box[1] + offset) for box in (one, other))
        return both / (sum(areas) - both)

    kept: list[int] = []
    for index in sorted(range(len(boxes)), key=lambda index: -scores[index]):
        if all(iou(boxes[index], boxes[other]) <= threshold for other in kept):
            kept.append(index)
    return kept


def random_boxes(number: int, size: float = 60) -> Tensor:
    corners = torch.rand(number, 2, generator=torch.manual_seed(0)) * size
    return torch.cat([corners, corners + 4 + torch.rand(number, 2) * size / 2], dim=1)


@pytest.mark.parametrize("offset", [0, 1])
@pytest.mark.parametrize("threshold", [0.1, 0.5, 0.9])
def test_nms(operators: ModuleType, offset: int, threshold: float) -> None:
    boxes = random_boxes(80)
    scores = torch.rand(80)
    kept = slow_nms(boxes.tolist(), scores.tolist(), threshold, offset)
    rows, indices = nms(boxes, scores, threshold, offset)
    assert indices.tolist() == kept
    torch.testing.assert_close(rows, torch.cat([boxes, scores[:, None]], dim=1)[kept])


def test_nms_keeps_boxes_above_a_score_and_the_best_ones_only(operators: ModuleType) -> None:
    boxes, scores = random_boxes(80), torch.rand(80)
    kept = [index for index in slow_nms(boxes.tolist(), scores.tolist(), 0.5, 0) if scores[index] > 0.4]
    assert 8 < len(kept) < 60
    assert nms(boxes, scores, 0.5, score_threshold=0.4)[1].tolist() == kept
    assert nms(boxes, scores, 0.5, score_threshold=0.4, max_num=8)[1].tolist() == kept[:8]


def test_an_offset_decides_boxes_that_touch(operators: ModuleType) -> None:
    boxes = torch.tensor([[0.0, 0, 9, 9], [0, 5, 9, 14]])  # share 4 of 9 rows, or as pixels 5 of 10
    scores = torch.tensor([0.9, 0.8])
    assert len(nms(boxes, scores, 0.3, offset=0)[1]) == 2
    assert len(nms(boxes, scores, 0.3, offset=1)[1]) == 1


def test_nms_by_class(operators: ModuleType) -> None:
    boxes, scores, classes = random_boxes(60), torch.rand(60), torch.arange(60) % 3
    kept = batched_nms(boxes, scores, classes, {"type": "nms", "iou_threshold": 0.5})[1]
    for number in range(3):
        own = (classes == number).nonzero().flatten()
        slow = slow_nms(boxes[own].tolist(), scores[own].tolist(), 0.5, 0)
        assert own[slow].tolist() == [index for index in kept.tolist() if classes[index] == number]
    assert nms(boxes[:0], scores[:0], 0.5)[1].tolist() == []


def slow_roi_align(features: Tensor, boxes: Tensor, size: int, scale: float, samples: int) -> Tensor:
    """The mean over bins of bilinear samples; differentiable."""
    _, channels, height, width = features.shape

    def at(image: int, y: float, x: float) -> Tensor:
        if not (-1 <= y <= height and -1 <= x <= width):
            return features.new_zeros(channels)
        y, x = min(max(y, 0), height - 1), min(max(x, 0), width - 1)
        top, left = min(int(y), height - 1), min(int(x), width - 1)
        bottom, right = min(top + 1, height - 1), min(left + 1, width - 1)
        below, beside = y - top, x - left
        upper = features[image, :, top, left] * (1 - beside) + features[image, :, top, right] * beside
        lower = features[image, :, bottom, left] * (1 - beside) + features[image, :, bottom, right] * beside
        return upper * (1 - below) + lower * below

    rows = []
    for image, *box in boxes.tolist():
        x1, y1, x2, y2 = (scale * side - 0.5 for side in box)
        bin_height, bin_width = (y2 - y1) / size, (x2 - x1) / size
        down, across = samples or math.ceil(bin_height), samples or math.ceil(bin_width)
        for row in range(size):
            for column in range(size):
                points = [
                    at(
                        int(image),
                        y1 + bin_height * (row + (i + 0.5) / down),
                        x1 + bin_width * (column + (j + 0.5) / across),
                    )
                    for i in range(down)
                    for j in range(across)
                ]
                rows.append(torch.stack(points).mean(dim=0))
    return torch.stack(rows).view(len(boxes), size, size, channels).permute(0, 3, 1, 2)


@pytest.mark.parametrize("samples", [0, 2])
def test_roi_align_and_its_gradient(operators: ModuleType, samples: int) -> None:
    features = torch.randn(2, 3, 7, 9, generator=torch.manual_seed(1)).requires_grad_()
    boxes = torch.tensor([[0, 3.0, 2, 30, 25], [1, 0, 0, 35, 27], [1, -6, 20, 9, 33], [0, 10, 10, 10.5, 10.5]])
    fast = RoIAlign(3, 0.25, samples)(features, boxes)
    slow = slow_roi_align(features, boxes, 3, 0.25, samples)
    torch.testing.assert_close(fast, slow)
    weights = torch.randn_like(slow)
    gradients = [torch.autograd.grad((output * weights).sum(), features)[0] for output in (fast, slow)]
    torch.testing.assert_close(*gradients)


def test_roi_align_of_no_box(operators: ModuleType) -> None:
    features = torch.ones(1, 3, 7, 9, requires_grad=True)
    output = RoIAlign(3, 0.25)(features, torch.zeros(0, 5))
    output.sum().backward()
    assert output.shape == (0, 3, 3, 3)
    assert not features.grad.any()


def test_roi_align_by_maxima_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.import_module("mmcv.ops.roi_align"), "ext_module", mmcv_operators)
    with pytest.raises(RuntimeError, match=r"roi_align with pool_mode='max' .* `make setup OPS=compiled`"):
        RoIAlign(3, 0.25, pool_mode="max")(torch.ones(1, 3, 7, 9), torch.tensor([[0, 0.0, 0, 8, 8]]))


def slow_focal_loss(logits: Tensor, classes: Tensor, gamma: float, alpha: float) -> Tensor:
    rows = []
    for row, number in zip(logits.double(), classes.tolist(), strict=True):
        for index, logit in enumerate(row):
            chance = torch.sigmoid(logit)
            if index == number:
                rows.append(-alpha * (1 - chance) ** gamma * torch.log(chance))
            else:
                rows.append(-(1 - alpha) * chance**gamma * torch.log(1 - chance))
    return torch.stack(rows).view_as(logits).float()


@pytest.mark.parametrize(("gamma", "alpha"), [(2.0, 0.25), (1.5, 0.6)])
def test_focal_loss_and_its_gradient(gamma: float, alpha: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """MMCV has no compiled focal loss for CPUs."""
    monkeypatch.setattr(importlib.import_module("mmcv.ops.focal_loss"), "ext_module", mmcv_operators)
    logits = (3 * torch.randn(12, 4, generator=torch.manual_seed(2))).requires_grad_()
    classes = torch.arange(12) % 5  # 4 is the background
    fast = sigmoid_focal_loss(logits, classes, gamma, alpha, None, "none")
    slow = slow_focal_loss(logits, classes, gamma, alpha)
    torch.testing.assert_close(fast, slow)
    gradients = [torch.autograd.grad((output * logits.detach()).sum(), logits)[0] for output in (fast, slow)]
    torch.testing.assert_close(*gradients)
    weight = torch.tensor([1.0, 2, 3, 4])
    weighted = sigmoid_focal_loss(logits, classes, gamma, alpha, weight, "sum")
    torch.testing.assert_close(weighted, (slow * torch.tensor([1.0, 2, 3, 4, 1])[classes][:, None]).sum())


def test_focal_loss_stays_finite_far_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.import_module("mmcv.ops.focal_loss"), "ext_module", mmcv_operators)
    logits = torch.tensor([[200.0, -200.0]], requires_grad=True)
    loss = sigmoid_focal_loss(logits, torch.tensor([1]), 2.0, 0.25, None, "sum")
    loss.backward()
    torch.testing.assert_close(loss, torch.tensor(0.75 * 200 + 0.25 * 200))
    torch.testing.assert_close(logits.grad, torch.tensor([[0.75, -0.25]]))


def slow_deformable_attention(value: Tensor, shapes: Tensor, places: Tensor, weights: Tensor) -> Tensor:
    batch, _, heads, length = value.shape
    output = []
    for image in range(batch):
        for query in range(places.shape[1]):
            for head in range(heads):
                total, start = value.new_zeros(length), 0
                for level, (height, width) in enumerate(shapes.tolist()):
                    cells = value[image, start : start + height * width, head].view(height, width, length)
                    start += height * width
                    for point in range(places.shape[4]):
                        x = places[image, query, head, level, point, 0] * width - 0.5
                        y = places[image, query, head, level, point, 1] * height - 0.5
                        left, top = math.floor(x), math.floor(y)
                        for row in (top, top + 1):
                            for column in (left, left + 1):
                                if 0 <= row < height and 0 <= column < width:
                                    share = (1 - (y - row).abs()) * (1 - (x - column).abs())
                                    total = (
                                        total + weights[image, query, head, level, point] * share * cells[row, column]
                                    )
                output.append(total)
    return torch.stack(output).view(batch, places.shape[1], heads * length)


def test_deformable_attention_and_its_gradients() -> None:
    """MMCV's function for a GPU; it has no compiled one for CPUs."""
    generator = torch.manual_seed(3)
    shapes = torch.tensor([[4, 6], [2, 3]])
    value = torch.randn(2, 30, 2, 5, generator=generator).requires_grad_()
    places = (torch.rand(2, 4, 2, 2, 3, 2, generator=generator) * 1.2 - 0.1).requires_grad_()
    weights = torch.rand(2, 4, 2, 2, 3, generator=generator).requires_grad_()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(importlib.import_module("mmcv.ops.multi_scale_deform_attn"), "ext_module", mmcv_operators)
        fast = MultiScaleDeformableAttnFunction.apply(value, shapes, torch.tensor([0, 24]), places, weights, 64)
        factors = torch.randn(fast.shape, generator=generator)
        fast_gradients = torch.autograd.grad((fast * factors).sum(), (value, places, weights))
    slow = slow_deformable_attention(value, shapes, places, weights)
    torch.testing.assert_close(fast, slow)
    slow_gradients = torch.autograd.grad((slow * factors).sum(), (value, places, weights))
    for one, other in zip(fast_gradients, slow_gradients, strict=True):
        torch.testing.assert_close(one, other)


def test_an_operator_without_counterpart_raises_when_it_is_called() -> None:
    assert hasattr(mmcv_operators, "nms_rotated")  # MMCV looks, when it is imported
    with pytest.raises(RuntimeError, match=r"operator nms_rotated has no counterpart .* OPS=compiled"):
        mmcv_operators.nms_rotated(torch.zeros(1, 5))
    assert not hasattr(mmcv_operators, "__wrapped__")  # Python's own protocols find what is there


@pytest.mark.skipif(bool(COMPILED), reason="MMCV's compiled operators are installed")
def test_mmcv_takes_the_operators_from_here() -> None:
    assert mmcv.ops.nms.__module__ == "mmcv.ops.nms"
    assert INSTALLED.nms is mmcv_operators.nms
    assert INSTALLED.roi_align_forward is mmcv_operators.roi_align_forward
    with pytest.raises(RuntimeError, match="operator border_align_forward"):
        INSTALLED.border_align_forward()
