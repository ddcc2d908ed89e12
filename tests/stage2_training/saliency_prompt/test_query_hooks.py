from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from stage1_proposals.common.errors import UserError
from stage2_training.saliency_prompt.query_hooks import QueryDecoder, Recording, recording


class Layer(nn.Module):
    """Adds one to its queries, in the place where they come in."""

    def forward(self, features: Tensor, queries: Tensor, scale: float = 1.0, **extra: float) -> tuple[Tensor, Tensor]:
        return features, scale * queries + 1 + sum(extra.values())


class Assigner:
    """Reports matches as `NaNSafeHungarianAssigner` does."""

    def __init__(self) -> None:
        self.observer: Callable[[SimpleNamespace], None] | None = None

    def assign(self, number: int) -> None:
        if self.observer is not None:
            self.observer(SimpleNamespace(gt_inds=torch.tensor([0, number]), num_gts=1))


def decoder_of(layers: list[nn.Module], assigners: list[Any]) -> QueryDecoder:
    return QueryDecoder(
        learned=torch.zeros(2, 1),
        layers=layers,
        argument="queries",
        output=lambda returned: returned[1],
        pyramid=nn.Identity(),
        levels=lambda returned: [returned, returned + 1],
        query_map=lambda returned, size: returned,
        assigners=assigners,
    )


def same(embedding: Tensor) -> Tensor:
    return embedding


CALLS: list[Callable[[Layer, Tensor, Tensor], tuple[Tensor, Tensor]]] = [
    lambda layer, features, queries: layer(features, queries),
    lambda layer, features, queries: layer(features, queries=queries),
    lambda layer, features, queries: layer(queries=queries, features=features),
    lambda layer, features, queries: layer(features, queries, 1.0, extra=0.0),
    lambda layer, features, queries: layer(features, extra=0.0, scale=1.0, queries=queries),
]


@pytest.mark.parametrize("call", CALLS)
def test_prompts_reach_the_first_layer_however_it_is_called(call: Callable) -> None:
    layers = [Layer(), Layer()]
    decoder = decoder_of(layers, [])
    with recording(decoder, lambda queries, pyramid: queries + 20 * pyramid, same) as record:
        features, queries = decoder.pyramid(torch.ones(1)), torch.zeros(1)
        for layer in layers:
            _, queries = call(layer, features, queries)
    assert queries == 22  # 20 + 1 + 1
    assert record.queries == [21, 22]
    assert record.pyramid == 1


def test_a_layer_that_runs_twice_gets_prompts_once() -> None:
    layer = Layer()
    decoder = decoder_of([layer], [])
    with recording(decoder, lambda queries, pyramid: queries + 10, same) as record:
        _, queries = layer(torch.ones(1), torch.zeros(1))
        layer(torch.ones(1), queries)
    assert record.queries == [11, 12]


def test_a_prediction_before_the_first_layer_and_its_embedding_get_the_same_prompts() -> None:
    norm, embed, layer = nn.Identity(), nn.Identity(), Layer()
    decoder = replace(decoder_of([layer], []), first_norm=norm, mask_embedding=embed)
    added = []

    def add(queries: Tensor, pyramid: Tensor) -> Tensor:
        added.append(queries)
        return queries + 10

    with recording(decoder, add, lambda embedding: embedding + 100) as record:
        queries = torch.zeros(1)
        assert embed(norm(queries)) == 110
        _, queries = layer(torch.ones(1), queries)
        assert queries == 11
        assert embed(norm(queries)) == 11  # later predictions are made of what the layers put out
    assert added == [0]
    assert record.queries == [11]
    assert not norm._forward_pre_hooks
    assert not embed._forward_hooks


def test_all_hooks_are_removed_also_after_an_error() -> None:
    layers, assigners = [Layer(), Layer()], [Assigner(), Assigner()]
    decoder = decoder_of(layers, assigners)
    modules = [*layers, decoder.pyramid]
    matches = []

    def fail() -> None:
        with recording(decoder, lambda queries, pyramid: queries, same) as record:
            assert all(module._forward_hooks for module in modules)
            matches.append(record.matches)
            for assigner in assigners:
                assigner.assign(3)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert all(assigner.observer is None for assigner in assigners)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in modules)
    assigners[0].assign(1)
    assert [match.tolist() for match in matches[0]] == [[0, 3], [0, 3]]


def test_an_assigner_that_reports_nothing_is_named() -> None:
    decoder = decoder_of([Layer()], [object()])
    with (
        pytest.raises(UserError, match=r"assigner object does not report .*; use NaNSafeHungarianAssigner"),
        recording(decoder, lambda queries, pyramid: queries, same),
    ):
        pass
    assert not decoder.layers[0]._forward_hooks


MATCHES = [[0, 1], [2, 0], [1, 2], [0, 0]]  # of two layers, two images each


@pytest.mark.parametrize("before", [[], [[1, 0], [0, 2]]])
def test_assignments_belong_to_layers_and_images_in_order(before: list) -> None:
    matches = [torch.tensor(row) for row in before + MATCHES]
    record = Recording(queries=[torch.zeros(2, 2, 1)] * 2, matches=matches, instances=[1] * len(matches))
    first, second = record.assignments(images=2)
    assert (first.image.tolist(), first.kernel.tolist(), first.instance.tolist()) == ([0, 1], [1, 0], [0, 1])
    assert (second.image.tolist(), second.kernel.tolist(), second.instance.tolist()) == ([0, 0], [0, 1], [0, 1])


@pytest.mark.parametrize("calls", [0, 3, 5, 8])
def test_a_wrong_number_of_matches_is_refused(calls: int) -> None:
    record = Recording(queries=[torch.zeros(2, 2, 1)] * 2, matches=[torch.zeros(2)] * calls)
    with pytest.raises(ValueError, match=f"2 layers ran on 2 images, but {calls} matches were made"):
        record.assignments(images=2)
