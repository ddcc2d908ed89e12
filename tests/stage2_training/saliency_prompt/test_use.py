"""What a model makes of its prompts is measured without changing it."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from mmdet.models.detectors import BaseDetector

from stage2_training.saliency_prompt.use import NONE, OTHERS, OWN, prompt_use


@pytest.fixture
def build(build_knet: Callable[..., BaseDetector]) -> Callable[..., BaseDetector]:
    def make(**settings: Any) -> BaseDetector:
        return build_knet(type="SaliencyPromptKNet", saliency_prompt={"feature_dim": 5} | settings)

    return make


def test_own_prompts_anothers_and_none_give_other_losses(build: Callable, make_batch: Callable) -> None:
    model = build()
    use = prompt_use(model, [make_batch([3, 0, 4])])
    dice = use.losses["loss_rpn_dice"]
    assert len({dice[given] for given in (OWN, OTHERS, NONE)}) == 3
    seg = use.losses["loss_rpn_seg"]  # which no kernel has a part in
    assert seg[OWN] == seg[OTHERS] == seg[NONE]


def test_losses_are_the_models_own(build: Callable, make_batch: Callable) -> None:
    model = build(drop_prob=0.0).train()
    use = prompt_use(model, [make_batch([3, 2])])
    with torch.no_grad():
        expected = model.loss(*make_batch([3, 2]))
    assert {name: row[OWN] for name, row in use.losses.items()} == pytest.approx(
        {name: loss.item() for name, loss in expected.items()}
    )
    without = build(matching="none").train()
    without.load_state_dict(model.state_dict())
    with torch.no_grad():
        expected = without.loss(*make_batch([3, 2]))
    assert {name: row[NONE] for name, row in use.losses.items()} == pytest.approx(
        {name: loss.item() for name, loss in expected.items()}
    )


@pytest.mark.parametrize("name", ["queryinst", "mask2former", "maskformer"])
def test_of_every_detector(build_adapted: Callable, make_batch: Callable, name: str) -> None:
    use = prompt_use(build_adapted(name, {}), [make_batch([3, 4])])
    assert use.length > 0
    assert use.chance == pytest.approx((1 / 3 + 1 / 4) / 2)
    assert len(use.hits) == len([loss for loss in use.losses if loss.endswith("loss_kernel")])
    if name == "mask2former":  # its first masks are made before
        first = use.losses["d0.loss_dice"]
        assert first[OWN] == first[OTHERS] == first[NONE]


def test_lengths_and_hits(build: Callable, make_batch: Callable) -> None:
    """One prompt for all, of the length of the kernels that it is added to: each kernel has that of its instance."""
    use = prompt_use(build(rescale=True), [make_batch([1, 0]), make_batch([1, 1])])
    assert use.length == pytest.approx(1, rel=1e-4)
    assert use.chance == 1
    assert use.hits == [1.0] * 2
    for row in use.losses.values():  # there is no other
        assert row[OWN] == row[OTHERS]


def test_the_model_is_left_as_it_was(build: Callable, make_batch: Callable) -> None:
    model = build().eval()
    settings, state = model.settings, {name: value.clone() for name, value in model.state_dict().items()}
    names = set(vars(model))
    prompt_use(model, [make_batch([2])])
    assert not model.training
    assert model.settings == settings
    assert set(vars(model)) == names
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
