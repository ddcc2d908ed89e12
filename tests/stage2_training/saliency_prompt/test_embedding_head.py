import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from stage1_proposals.common.errors import UserError
from stage2_training.knet.assignment import Assignment
from stage2_training.saliency_prompt.embedding_head import EmbeddingHead, reconstruction_loss, regression_loss

NOTHING = Assignment(*torch.zeros(3, 0, dtype=torch.long))


def pairs(*triples: tuple[int, int, int]) -> Assignment:
    return Assignment(*torch.tensor(triples).T)


def slow_reconstruction(predicted: Tensor, target: Tensor) -> float:
    """Half the squared distance of both at unit length, as in UP-DETR's publication."""
    lengths = [math.sqrt(sum(value**2 for value in row.tolist())) for row in (predicted, target)]
    pairs = zip(predicted.tolist(), target.tolist(), strict=True)
    return sum((a / lengths[0] - b / lengths[1]) ** 2 for a, b in pairs) / 2


def slow_regression(predicted: Tensor, target: Tensor) -> float:
    rows = predicted.tolist(), target.tolist()
    scale = math.sqrt(sum(x * x for x in rows[1]) / len(rows[1]))
    return sum(abs(a - b / scale) for a, b in zip(*rows, strict=True)) / len(rows[0])


SLOW = {"reconstruct": slow_reconstruction, "regress": slow_regression}


@pytest.mark.parametrize("loss", SLOW)
def test_each_layer_uses_its_own_queries_and_assignment(loss: str) -> None:
    torch.manual_seed(0)
    head = EmbeddingHead(feature_dim=6, channels=4, weight=0.5, loss=loss)
    features = [torch.randn(2, 6), torch.randn(0, 6), torch.randn(3, 6)]
    queries = [torch.randn(3, 5, 4), torch.randn(3, 5, 4)]
    triples = [[(0, 1, 0), (2, 3, 2), (2, 0, 1)], [(2, 0, 1)]]
    losses = head(features, queries, [pairs(*layer) for layer in triples])
    assert list(losses) == ["s0.loss_kernel", "s1.loss_kernel"]
    for layer, found in enumerate(losses.values()):
        total = sum(SLOW[loss](head.layers(queries[layer][b, n]), features[b][i]) for b, n, i in triples[layer])
        assert found.item() == pytest.approx(0.5 * total / len(triples[layer]), rel=1e-5)


def test_known_values() -> None:
    predicted = torch.tensor([[2.0, 0.0], [0.0, 3.0], [-1.0, 0.0]])
    targets = torch.tensor([[0.1, 0.0], [1.0, 0.0], [1.0, 0.0]])
    assert reconstruction_loss(predicted, targets).tolist() == pytest.approx([0, 1, 2])
    # Of a target of unit length, the root mean square is 1 after scaling by the root of 2.
    root = math.sqrt(2)
    assert regression_loss(predicted, targets).tolist() == pytest.approx(
        [(2 - root) / 2, (root + 3) / 2, (1 + root) / 2]
    )


@pytest.mark.parametrize("loss", SLOW)
@pytest.mark.parametrize("count", [0, 2])
def test_nothing_to_compare_keeps_the_graph(loss: str, count: int) -> None:
    head = EmbeddingHead(feature_dim=6, channels=4, loss=loss)
    queries = torch.randn(2, 5, 4, requires_grad=True)
    losses = head([torch.randn(count, 6), torch.randn(0, 6)], [queries], [NOTHING])
    losses["s0.loss_kernel"].backward()
    assert losses["s0.loss_kernel"].item() == 0
    assert (queries.grad == 0).all()
    assert all((parameter.grad == 0).all() for parameter in head.parameters())


def test_loss_is_float32_under_autocast() -> None:
    head = EmbeddingHead(feature_dim=6, channels=4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        losses = head([torch.randn(2, 6)], [torch.randn(1, 5, 4).bfloat16()], [pairs((0, 1, 0))])
    assert losses["s0.loss_kernel"].dtype == torch.float32


@pytest.mark.parametrize("loss", SLOW)
def test_the_target_is_fixed(loss: str) -> None:
    """Prompts are targets with a gradient where `detach=False`."""
    head = EmbeddingHead(feature_dim=6, channels=4, loss=loss)
    features, queries = torch.randn(2, 6, requires_grad=True), torch.randn(1, 5, 4, requires_grad=True)
    head([features], [queries], [pairs((0, 1, 0))])["s0.loss_kernel"].backward()
    assert features.grad is None
    assert queries.grad.abs().sum() > 0


@pytest.mark.parametrize("name", ["detr", "deformable_detr"])
def test_what_prompts_are_made_of_is_the_target(name: str, build_adapted: Callable, make_batch: Callable) -> None:
    """The pooled feature itself: of DETR's backbone, before the linear layer; the seed features do not matter."""
    settings = {"matching": "random", "kernel_loss": "reconstruct", "kernel_target": "prompt"}
    model, batch = build_adapted(name, settings), make_batch([3, 0, 2])
    prompted = model.prompted_pass(*batch)
    for sample in batch[1]:
        sample.gt_instances.seed_features.fill_(torch.nan)
    found = model.kernel_losses(prompted.queries, prompted.assignments, batch[1], prompted.match)
    assignment = prompted.assignments[-1]
    width = 64  # channels of the miniature backbone's last map, and of the neck
    assert prompted.match.pooled.shape == (3, 3, width)
    head, queries = model.kernel_supervision, prompted.queries[-1]
    pooled = prompted.match.pooled
    triples = list(zip(assignment.image, assignment.kernel, assignment.instance, strict=True))
    total = sum(slow_reconstruction(head.layers(queries[b, n]), pooled[b, i]) for b, n, i in triples)
    assert found["s2.loss_kernel"].item() == pytest.approx(total / 5, rel=1e-4)


def test_the_target_needs_prompts(build_adapted: Callable) -> None:
    with pytest.raises(UserError, match=r"kernel_target 'prompt': there are none with matching=none; use"):
        build_adapted("detr", {"matching": "none", "kernel_target": "prompt"})
