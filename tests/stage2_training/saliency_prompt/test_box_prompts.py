import math

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from stage2_training.saliency_prompt.matching import Prompts, box_prompts

STRIDE = 32


def bilinear(feature: np.ndarray, y: float, x: float) -> np.ndarray:
    """The feature (C, h, w) at a point in cells, whose centres lie at integers; the border goes on outside."""
    height, width = feature.shape[1:]
    y, x = min(max(y, 0), height - 1), min(max(x, 0), width - 1)
    top, left = int(y), int(x)
    bottom, right = min(top + 1, height - 1), min(left + 1, width - 1)
    upper = feature[:, top, left] * (left + 1 - x) + feature[:, top, right] * (x - left)
    lower = feature[:, bottom, left] * (left + 1 - x) + feature[:, bottom, right] * (x - left)
    return upper * (top + 1 - y) + lower * (y - top)


def slow_mean(feature: np.ndarray, box: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """Mean over the box, in pixels, from `rows` x `columns` evenly spaced points."""
    x1, y1, x2, y2 = box / STRIDE - 0.5
    ys = y1 + (np.arange(rows) + 0.5) / rows * (y2 - y1)
    xs = x1 + (np.arange(columns) + 0.5) / columns * (x2 - x1)
    return np.mean([bilinear(feature, y, x) for y in ys for x in xs], axis=0)


def feature_map(images: int = 1, height: int = 5, width: int = 7, seed: int = 0) -> torch.Tensor:
    return torch.randn(images, 3, height, width, generator=torch.Generator().manual_seed(seed))


def prompts_of(feature: torch.Tensor, *boxes: torch.Tensor, center: bool = False) -> Prompts:
    """Prompts of images without padding."""
    height, width = (size * STRIDE for size in feature.shape[2:])
    return box_prompts(feature, boxes, [(height, width)] * len(boxes), width, center)


def prompt_of(feature: torch.Tensor, box: np.ndarray) -> np.ndarray:
    return prompts_of(feature, torch.from_numpy(box.astype(np.float32))[None]).features[0, 0].numpy()


@given(st.integers(0, 100), st.floats(0, 200), st.floats(0, 140), st.floats(0.5, 224), st.floats(0.5, 160))
@settings(deadline=None, max_examples=40)
def test_prompt_is_a_mean_with_a_sample_for_each_cell(seed: int, x: float, y: float, w: float, h: float) -> None:
    feature = feature_map(seed=seed)
    box = np.array([x, y, min(x + w, 224), min(y + h, 160)], np.float32)
    height, width = (float(box[i + 2] - box[i]) / STRIDE for i in (1, 0))
    assume(min(abs(size - round(size)) for size in (height, width)) > 1e-3)  # rounding decides what is a cell more
    rows, columns = math.ceil(height), math.ceil(width)
    np.testing.assert_allclose(prompt_of(feature, box), slow_mean(feature[0].numpy(), box, rows, columns), atol=1e-4)


@given(st.integers(0, 100), st.floats(0, 20), st.floats(0, 20), st.floats(192, 400), st.floats(192, 300))
@settings(deadline=None, max_examples=10)
def test_that_is_near_the_integral_for_large_boxes(seed: int, x: float, y: float, w: float, h: float) -> None:
    feature = feature_map(height=10, width=13, seed=seed)
    box = np.array([x, y, min(x + w, 416), min(y + h, 320)])
    # The feature is white noise of standard deviation 1, rougher than any FPN's.
    np.testing.assert_allclose(prompt_of(feature, box), slow_mean(feature[0].numpy(), box, 60, 60), atol=0.1)


def test_a_box_of_whole_cells_has_their_mean() -> None:
    feature = feature_map()
    box = torch.tensor([[STRIDE, 2 * STRIDE, 5 * STRIDE, 4 * STRIDE]], dtype=torch.float32)
    expected = feature[0, :, 2:4, 1:5].mean(dim=(1, 2))
    torch.testing.assert_close(prompts_of(feature, box).features[0, 0], expected)
    whole = torch.tensor([[0, 0, 7 * STRIDE, 5 * STRIDE]], dtype=torch.float32)
    torch.testing.assert_close(prompts_of(feature, whole).features[0, 0], feature[0].mean(dim=(1, 2)))


def test_cells_that_look_elsewhere_are_read_there() -> None:
    feature = feature_map()
    box = torch.tensor([[2.0, 1, 4, 3], [0, 0, 2, 2]]) * STRIDE
    sizes = [(5 * STRIDE, 7 * STRIDE)]
    moved = box_prompts(feature, [box], sizes, 7 * STRIDE, offset=-STRIDE)
    torch.testing.assert_close(moved.features[0], prompts_of(feature, box + STRIDE).features[0])


def test_a_box_below_a_cell_has_the_value_at_its_centre() -> None:
    feature = feature_map()
    expected = bilinear(feature[0].numpy(), 75 / STRIDE - 0.5, 103 / STRIDE - 0.5)
    np.testing.assert_allclose(prompt_of(feature, np.array([100, 70, 106, 80])), expected, atol=1e-5)


def test_images_are_padded_to_the_fullest() -> None:
    feature = feature_map(images=4)
    box = torch.tensor([[0.0, 0.0, 64.0, 64.0]])
    prompts = prompts_of(feature, box, box[:0], torch.cat([box, box + 64, box]), box[:0])
    assert prompts.features.shape == (4, 3, 3)
    assert prompts.counts.tolist() == [1, 0, 3, 0]
    torch.testing.assert_close(prompts.features[0, 0], feature[0, :, :2, :2].mean(dim=(1, 2)))
    torch.testing.assert_close(prompts.features[2, 1], feature[2, :, 2:4, 2:4].mean(dim=(1, 2)))
    assert (prompts.features[0, 1:] == 0).all()


def test_the_gradient_reaches_the_feature() -> None:
    feature = feature_map().requires_grad_()
    prompts_of(feature, torch.tensor([[0.0, 0.0, 64.0, 64.0]])).features.sum().backward()
    assert feature.grad[0, :, :2, :2].numpy() == pytest.approx(0.25)
    assert (feature.grad[0, :, 3:] == 0).all()


def test_centred_prompts_lack_the_mean_of_their_image_without_its_padding() -> None:
    feature = feature_map(images=2)
    boxes = [torch.tensor([[0.0, 0.0, 64.0, 64.0], [32.0, 32.0, 96.0, 64.0]]), torch.tensor([[0.0, 0.0, 64.0, 64.0]])]
    sizes = [(3 * STRIDE, 4 * STRIDE), (5 * STRIDE, 7 * STRIDE)]
    plain = box_prompts(feature, boxes, sizes, 7 * STRIDE)
    centred = box_prompts(feature, boxes, sizes, 7 * STRIDE, center=True)
    means = torch.stack([feature[0, :, :3, :4].mean(dim=(1, 2)), feature[1].mean(dim=(1, 2))])
    torch.testing.assert_close(centred.image_means, means)
    torch.testing.assert_close(plain.image_means, means)
    for image, count in enumerate((2, 1)):
        expected = plain.features[image, :count] - means[image]
        torch.testing.assert_close(centred.features[image, :count], expected)
    assert (centred.features[1, 1:] == 0).all()
