"""The plain K-Net computes the losses of ours, so that their times may be compared."""

import numpy as np
import pytest
import torch
from mmdet.structures import DetDataSample
from mmdet.structures.mask import BitmapMasks
from mmengine.structures import InstanceData

from stage2_training.knet.assignment import CostWeights, instance_targets
from stage2_training.knet.heads import KernelHeadOutput, StageOutput
from stage2_training.knet.losses import LossWeights, knet_losses
from tests.reference.plain_knet import plain_instances, plain_losses

KERNELS, HEIGHT, WIDTH = 7, 64, 96


def blobs(rng: np.random.Generator, count: int) -> np.ndarray:
    """uint8 (count, HEIGHT, WIDTH): overlapping ellipses."""
    y, x = np.ogrid[:HEIGHT, :WIDTH]
    centres, radii = rng.uniform(0, (HEIGHT, WIDTH), (count, 2)), rng.uniform(6, 30, (count, 2))
    inside = [
        ((y - cy) / ry) ** 2 + ((x - cx) / rx) ** 2 <= 1 for (cy, cx), (ry, rx) in zip(centres, radii, strict=True)
    ]
    return np.array(inside, np.uint8).reshape(count, HEIGHT, WIDTH)


@pytest.mark.parametrize("counts", [[3, 5], [4, 0, 1], [0, 0], [9]])
@pytest.mark.parametrize("classes", [1, 4])
def test_losses_and_gradients_are_the_products(counts: list[int], classes: int) -> None:
    rng = np.random.default_rng(len(counts) + classes)
    samples = []
    for count in counts:
        sample = DetDataSample(metainfo={"batch_input_shape": (HEIGHT, WIDTH)})
        labels = torch.from_numpy(rng.integers(0, classes, count))
        sample.gt_instances = InstanceData(labels=labels, masks=BitmapMasks(blobs(rng, count), HEIGHT, WIDTH))
        samples.append(sample)
    torch.manual_seed(0)
    size, images = (HEIGHT // 8, WIDTH // 8), len(counts)

    def maps(channels: int) -> torch.Tensor:
        return (2 * torch.randn(images, channels, *size)).requires_grad_()

    initial = KernelHeadOutput(torch.empty(0), torch.empty(0), maps(KERNELS), maps(classes))
    stages = [
        StageOutput(torch.randn(images, KERNELS, classes).requires_grad_(), maps(KERNELS), torch.empty(0))
        for _ in range(2)
    ]
    outputs = [initial.mask_logits, initial.seg_logits, *(part for stage in stages for part in stage[:2])]
    cost_weights, loss_weights = CostWeights(), LossWeights(mask=1.5)

    expected = plain_losses(initial, stages, plain_instances(samples, torch.device("cpu")), cost_weights, loss_weights)
    targets = instance_targets(samples, (2 * size[0], 2 * size[1]))
    actual, _ = knet_losses(initial, stages, targets, cost_weights, loss_weights)
    assert actual.keys() == expected.keys()
    for name, loss in actual.items():
        torch.testing.assert_close(
            loss, expected[name], rtol=1e-4, atol=1e-6, msg=lambda text, name=name: f"{name}: {text}"
        )
    gradients = torch.autograd.grad(sum(actual.values()), outputs)
    for gradient, other in zip(gradients, torch.autograd.grad(sum(expected.values()), outputs), strict=True):
        torch.testing.assert_close(gradient, other, rtol=1e-3, atol=1e-6)
