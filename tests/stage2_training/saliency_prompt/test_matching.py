import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stage2_training.saliency_prompt.matching import Prompts, cosine_similarity, gather_prompts, match_prompts

MATCHINGS = ("cosine", "sequential", "random")
COUNTS = st.lists(st.integers(0, 5), min_size=1, max_size=3).filter(any)


def make(seed: int, counts: list[int], kernels: int = 7, channels: int = 4) -> tuple[torch.Tensor, Prompts]:
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(len(counts), max(counts), channels, generator=generator)
    for row, count in zip(features, counts, strict=True):
        row[count:] = 0
    learned, means = torch.randn(kernels, channels, generator=generator), torch.zeros(len(counts), channels)
    return learned, Prompts(features, torch.tensor(counts), means)


def cosine(a: torch.Tensor, b: torch.Tensor) -> float:
    a, b = a.tolist(), b.tolist()
    dot = sum(x * y for x, y in zip(a, b, strict=True))
    return dot / math.sqrt(sum(x * x for x in a)) / math.sqrt(sum(y * y for y in b))


def test_similarity_of_each_pair() -> None:
    kernels, prompts = make(0, [3, 3])
    similarity = cosine_similarity(kernels.expand(2, -1, -1), prompts.features)
    assert similarity.shape == (2, 7, 3)
    for image in range(2):
        for n in range(7):
            for k in range(3):
                expected = cosine(kernels[n], prompts.features[image, k])
                assert similarity[image, n, k].item() == pytest.approx(expected, abs=1e-5)


@given(st.integers(0, 2**31), COUNTS)
@settings(deadline=None, max_examples=30)
def test_cosine_takes_the_most_similar_prompt(seed: int, counts: list[int]) -> None:
    kernels, prompts = make(seed, counts)
    index = match_prompts(kernels, prompts, "cosine")
    for image, count in enumerate(counts):
        for n in range(7 if count else 0):
            similarities = [cosine(kernels[n], prompts.features[image, k]) for k in range(count)]
            assert similarities[int(index[image, n])] == pytest.approx(max(similarities), abs=1e-5)


@given(st.integers(0, 2**31))
@settings(deadline=None, max_examples=20)
def test_cosine_follows_the_prompts_and_the_kernels(seed: int) -> None:
    kernels, prompts = make(seed, [5])
    index = match_prompts(kernels, prompts, "cosine")
    generator = torch.Generator().manual_seed(seed)
    moved, scales = torch.randperm(5, generator=generator), torch.rand(5, 1, generator=generator) + 0.1
    shuffled = match_prompts(kernels, prompts._replace(features=prompts.features[:, moved] * scales), "cosine")
    assert torch.equal(moved[shuffled], index)
    order = torch.randperm(7, generator=generator)
    assert torch.equal(match_prompts(kernels[order], prompts, "cosine"), index[:, order])


def test_cosine_on_kernels_of_each_image() -> None:
    kernels, prompts = make(1, [3, 2])
    own = torch.stack([kernels, kernels.flip(0)])
    index = match_prompts(own, prompts, "cosine")
    shared = match_prompts(kernels, prompts, "cosine")
    assert torch.equal(index[0], shared[0])
    assert torch.equal(index[1], shared[1].flip(0))


def test_sequential_repeats_the_prompts_in_order() -> None:
    kernels, prompts = make(2, [3, 1, 5, 0])
    index = match_prompts(kernels, prompts, "sequential")
    assert index[0].tolist() == [0, 1, 2, 0, 1, 2, 0]
    assert index[1].tolist() == [0] * 7
    assert index[2].tolist() == [0, 1, 2, 3, 4, 0, 1]
    few = match_prompts(kernels[:2], prompts, "sequential")
    assert few[2].tolist() == [0, 1]


def test_random_shuffles_the_sequential_order() -> None:
    torch.manual_seed(0)
    kernels, prompts = make(3, [3, 2])
    drawn = [match_prompts(kernels, prompts, "random") for _ in range(20)]
    for index in drawn:
        assert sorted(index[0].tolist()) == [0, 0, 0, 1, 1, 2, 2]
        assert sorted(index[1].tolist()) == [0, 0, 0, 0, 1, 1, 1]
    assert len({tuple(index[0].tolist()) for index in drawn}) > 10


def test_an_unknown_matching_is_an_error() -> None:
    with pytest.raises(ValueError, match="nearest"):
        match_prompts(*make(4, [1]), "nearest")


@given(st.integers(0, 2**31), COUNTS, st.sampled_from(MATCHINGS))
@settings(deadline=None, max_examples=40)
def test_every_kernel_gets_a_prompt_of_its_own_image(seed: int, counts: list[int], matching: str) -> None:
    kernels, prompts = make(seed, counts)
    index = match_prompts(kernels, prompts, matching)
    gathered = gather_prompts(prompts, index)
    assert gathered.shape == (len(counts), 7, 4)
    for image, count in enumerate(counts):
        for n in range(7 if count else 0):
            assert index[image, n] < count
            assert torch.equal(gathered[image, n], prompts.features[image, index[image, n]])
