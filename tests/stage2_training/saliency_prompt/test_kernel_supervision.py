import math

import pytest
import torch
import torch.nn.functional as F

from stage2_training.knet.assignment import Assignment
from stage2_training.saliency_prompt.kernel_supervision import KernelSupervision, contrast_loss, kernel_loss

NOTHING = Assignment(*torch.zeros(3, 0, dtype=torch.long))


def pairs(*triples: tuple[int, int, int]) -> Assignment:
    return Assignment(*torch.tensor(triples).T)


def test_loss_is_the_mean_over_pairs() -> None:
    torch.manual_seed(0)
    targets, kernels = torch.randn(2, 3, 4), torch.randn(2, 5, 4)
    triples = [(0, 4, 0), (0, 1, 2), (1, 0, 1)]
    total = 0.0
    for image, kernel, instance in triples:
        s, k = targets[image, instance], kernels[image, kernel]
        total += 1 - float(s @ k) / float(s.norm() * k.norm())
    assert kernel_loss(targets, kernels, pairs(*triples)).item() == pytest.approx(total / 3, rel=1e-5)


def test_known_values() -> None:
    targets = torch.tensor([[[1.0, 0.0], [0.0, 2.0]]])
    kernels = torch.tensor([[[3.0, 0.0], [1.0, 0.0], [-5.0, 0.0]]])
    assert kernel_loss(targets, kernels, pairs((0, 0, 0))).item() == pytest.approx(0)
    assert kernel_loss(targets, kernels, pairs((0, 2, 0))).item() == pytest.approx(2)
    assert kernel_loss(targets, kernels, pairs((0, 1, 1))).item() == pytest.approx(1)
    assert kernel_loss(targets, kernels, pairs((0, 2, 0), (0, 1, 1))).item() == pytest.approx(1.5)


def test_each_stage_uses_its_own_kernels_and_assignment() -> None:
    torch.manual_seed(0)
    supervision = KernelSupervision(feature_dim=6, channels=4, weight=0.5)
    seeds = [torch.randn(2, 6), torch.randn(0, 6), torch.randn(3, 6)]
    kernels = [torch.randn(3, 5, 4), torch.randn(3, 5, 4)]
    assignments = [pairs((0, 1, 0), (2, 3, 2)), pairs((2, 0, 1))]
    losses = supervision(seeds, kernels, assignments)
    first = [
        1 - F.cosine_similarity(supervision.linear(seeds[0][0]), kernels[0][0, 1], dim=0),
        1 - F.cosine_similarity(supervision.linear(seeds[2][2]), kernels[0][2, 3], dim=0),
    ]
    second = 1 - F.cosine_similarity(supervision.linear(seeds[2][1]), kernels[1][2, 0], dim=0)
    assert set(losses) == {"s0.loss_kernel", "s1.loss_kernel"}
    torch.testing.assert_close(losses["s0.loss_kernel"], 0.5 * (first[0] + first[1]) / 2)
    torch.testing.assert_close(losses["s1.loss_kernel"], 0.5 * second)


def test_contrast_is_the_cross_entropy_of_the_own_target_among_those_of_the_image() -> None:
    torch.manual_seed(0)
    targets, kernels, counts = torch.randn(2, 3, 4), torch.randn(2, 5, 4), [3, 2]
    triples = [(0, 4, 0), (0, 1, 2), (1, 0, 1)]
    total = 0.0
    for image, kernel, instance in triples:
        cosines = [
            float(F.cosine_similarity(targets[image, k], kernels[image, kernel], dim=0)) for k in range(counts[image])
        ]
        total -= cosines[instance] / 0.1 - math.log(sum(math.exp(cosine / 0.1) for cosine in cosines))
    assert contrast_loss(targets, counts, kernels, pairs(*triples)).item() == pytest.approx(total / 3, rel=1e-5)


def test_contrast_does_not_fall_when_all_targets_become_one() -> None:
    one = torch.ones(1, 4, 8)
    kernels, assignment = torch.ones(1, 4, 8), pairs(*((0, i, i) for i in range(4)))
    assert kernel_loss(one, kernels, assignment).item() == pytest.approx(0, abs=1e-6)
    assert contrast_loss(one, [4], kernels, assignment).item() == pytest.approx(math.log(4))


@pytest.mark.parametrize("loss", ["cosine", "contrast"])
@pytest.mark.parametrize("weight", [0.0, 1.0])
@pytest.mark.parametrize("count", [0, 2])
def test_nothing_to_compare_keeps_the_graph(loss: str, weight: float, count: int) -> None:
    supervision = KernelSupervision(feature_dim=6, channels=4, weight=weight, loss=loss)
    kernels = torch.randn(2, 5, 4, requires_grad=True)
    losses = supervision([torch.randn(count, 6), torch.randn(0, 6)], [kernels], [NOTHING])
    assert losses["s0.loss_kernel"].item() == 0
    losses["s0.loss_kernel"].backward()
    assert (kernels.grad == 0).all()
    assert all((parameter.grad == 0).all() for parameter in supervision.parameters())


def test_loss_is_float32_under_autocast() -> None:
    supervision = KernelSupervision(feature_dim=6, channels=4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        losses = supervision([torch.randn(2, 6)], [torch.randn(1, 5, 4).bfloat16()], [pairs((0, 1, 0))])
    assert losses["s0.loss_kernel"].dtype == torch.float32
