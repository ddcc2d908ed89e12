"""Eq. 3-4 against slow, obvious loops and known values."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from stage1_proposals.generators.saliency_maps import mask_scores, normalise, saliency_maps


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_saliency_is_the_inner_product_of_seed_and_cell() -> None:
    features, seeds = random(6, 3, 4), random(5, 6, seed=1)
    maps = saliency_maps(features[None], seeds[None], "dot")[0]
    for seed in range(5):
        for y in range(3):
            for x in range(4):
                expected = sum(float(seeds[seed, d] * features[d, y, x]) for d in range(6))
                assert maps[seed, y, x] == pytest.approx(expected, abs=1e-5)


def test_saliency_is_a_convolution_with_the_seeds_as_weights() -> None:
    features, seeds = random(2, 6, 3, 4), random(2, 5, 6, seed=1)
    for found, x, s in zip(saliency_maps(features, seeds, "dot"), features, seeds, strict=True):
        torch.testing.assert_close(found, F.conv2d(x[None], s[:, :, None, None])[0])


def test_cosine_saliency_is_that_of_normalised_features_and_seeds() -> None:
    features, seeds = random(2, 6, 3, 4), random(2, 5, 6, seed=1)
    features[0, :, 1, 2] = 0
    seeds[1, 3] = 0
    expected = saliency_maps(F.normalize(features, dim=1), F.normalize(seeds, dim=2), "dot")
    torch.testing.assert_close(saliency_maps(features, seeds, "cosine"), expected)


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 10_000), low=st.floats(-100, 100), span=st.floats(0.01, 100))
def test_normalised_maps_fill_0_to_1_whatever_their_range(seed: int, low: float, span: float) -> None:
    maps = normalise(low + span * torch.rand(3, 4, 5, generator=torch.Generator().manual_seed(seed)))
    assert maps.amin((1, 2)).tolist() == [0, 0, 0]
    assert maps.amax((1, 2)).tolist() == [1, 1, 1]


def test_normalising_does_not_change_the_order_of_cells() -> None:
    maps = random(2, 4, 5)
    assert torch.equal(normalise(maps).flatten(1).argsort(1), maps.flatten(1).argsort(1))


def test_normalised_known_values() -> None:
    assert normalise(torch.tensor([[[-1.0, 0.0], [1.0, 3.0]]])).tolist() == [[[0, 0.25], [0.5, 1]]]


def test_a_constant_map_becomes_0() -> None:
    assert not normalise(torch.full((1, 3, 3), 7.5)).any()


def test_score_is_the_mean_saliency_inside_the_mask() -> None:
    maps = torch.rand(4, 5, 6, generator=torch.Generator().manual_seed(0))
    masks = maps > torch.tensor([0.1, 0.5, 0.9, 2.0])[:, None, None]
    for score, soft, mask in zip(mask_scores(maps, masks), maps, masks, strict=True):
        inside = [float(soft[y, x]) for y in range(5) for x in range(6) if mask[y, x]]
        assert float(score) == pytest.approx(sum(inside) / len(inside) if inside else 0.0, abs=1e-6)
