"""Prompts are diagnosed without changing the model."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from mmdet.models.detectors import BaseDetector

from stage1_proposals.common.errors import UserError
from stage2_training.saliency_prompt.diagnostics import (
    MEAN,
    NONE,
    OWN,
    SWAPPED,
    VARIANTS,
    diagnose_prompts,
    swap_prompts,
)
from stage2_training.saliency_prompt.matching import box_prompts, gather_prompts
from stage2_training.saliency_prompt.prompter import PromptMap


@pytest.fixture
def build(build_knet: Callable[..., BaseDetector]) -> Callable[..., BaseDetector]:
    def make(**settings: Any) -> BaseDetector:
        return build_knet(type="SaliencyPromptKNet", saliency_prompt={"feature_dim": 5} | settings)

    return make


def test_each_kind_of_prompt_gives_other_losses(build: Callable, make_batch: Callable) -> None:
    model, (images, samples) = build(), make_batch([3, 0, 4])
    for sample in samples:
        sample.gt_instances.labels[:] = 0
    diagnosis = diagnose_prompts(model, [(images, samples)])
    assert diagnosis.images == 3
    dice = diagnosis.losses["loss_rpn_dice"]
    assert len({dice[variant] for variant in VARIANTS}) == 4
    seg = diagnosis.losses["loss_rpn_seg"]  # of one class, no kernel has a part in it
    assert seg[OWN] == seg[SWAPPED] == seg[MEAN] == seg[NONE]


def test_losses_are_the_models_own(build: Callable, make_batch: Callable) -> None:
    model = build(drop_prob=0.0).train()
    diagnosis = diagnose_prompts(model, [make_batch([3, 2])])
    with torch.no_grad():
        expected = model.loss(*make_batch([3, 2]))
    assert {name: row[OWN] for name, row in diagnosis.losses.items()} == pytest.approx(
        {name: loss.item() for name, loss in expected.items()}
    )
    without = build(matching="none").train()
    without.load_state_dict(model.state_dict())
    with torch.no_grad():
        expected = without.loss(*make_batch([3, 2]))
    assert {name: row[NONE] for name, row in diagnosis.losses.items()} == pytest.approx(
        {name: loss.item() for name, loss in expected.items()}
    )


@pytest.mark.parametrize("name", ["queryinst", "mask2former", "maskformer"])
def test_of_every_detector(build_adapted: Callable, make_batch: Callable, name: str) -> None:
    diagnosis = diagnose_prompts(build_adapted(name, {}), [make_batch([3, 4])])
    assert math.isfinite(diagnosis.length)
    assert (diagnosis.length == 0) == (name == "maskformer")  # whose queries are zeros
    assert diagnosis.chance == pytest.approx(2 / 7)
    assert len(diagnosis.hits) == len([loss for loss in diagnosis.losses if loss.endswith("loss_kernel")])
    if name == "mask2former":  # its first masks are made before the first layer
        assert len(set(diagnosis.losses["d0.loss_dice"].values())) == len(VARIANTS)


def test_lengths_and_hits(build: Callable, make_batch: Callable) -> None:
    counts = [2, 0, 5]
    model, batch = build(matching="sequential", rescale=True, drop_prob=0.0).train(), make_batch(counts)
    diagnosis = diagnose_prompts(model, [batch])
    assert diagnosis.length == pytest.approx(1, rel=1e-4)
    with torch.no_grad():
        assignments = model.prompted_pass(*batch).assignments
    assert diagnosis.chance == pytest.approx(2 / 7)
    for share, found in zip(diagnosis.hits, assignments, strict=True):
        own = [k % counts[i] == n for i, k, n in zip(found.image, found.kernel, found.instance, strict=True)]
        assert share == pytest.approx(sum(own) / 7)


def test_anothers_prompts_are_the_next_images(build: Callable, make_batch: Callable) -> None:
    model, (images, samples) = build(matching="sequential").train(), make_batch([2, 0, 5])
    alone = diagnose_prompts(model, [(images[:1], samples[:1])])
    assert all(row[OWN] == row[SWAPPED] for row in alone.losses.values())
    levels = model.extract_feat(images)
    maps = PromptMap(levels, lambda: levels[-1])
    swapped = swap_prompts(model.prompter.match(model.rpn_head.initial_kernels, maps, samples, False))
    assert swapped.prompts.counts.tolist() == [5, 0, 2]
    for image, donor in ((0, 2), (2, 0)):
        boxes = samples[donor].gt_instances.bboxes
        size = samples[donor].img_shape
        prompts = box_prompts(levels[-1][donor : donor + 1], [boxes], [size], images.shape[-1]).features[0]
        given = gather_prompts(swapped.prompts, swapped.index)[image]
        torch.testing.assert_close(given, prompts[swapped.index[image]])
        assert swapped.index[image].max() < len(boxes)


def test_the_image_mean_is_a_control(build: Callable, make_batch: Callable) -> None:
    """A model that gives all queries the image's mean has no other prompts: they change nothing in the diagnosis."""
    model = build(matching="mean", drop_prob=0.0).train()
    diagnosis = diagnose_prompts(model, [make_batch([3, 2])])
    assert all(row[OWN] == row[MEAN] for row in diagnosis.losses.values())
    images, samples = make_batch([3, 2])
    maps = PromptMap(model.extract_feat(images), lambda: torch.zeros(0))
    match = model.prompter.match(model.rpn_head.initial_kernels, maps, samples, False)
    means = model.prompter.prompts_of_queries(match)
    assert not torch.allclose(means[0], means[1])
    assert torch.equal(model.prompter.prompts_of_queries(swap_prompts(match)), means.flip(0))  # the other image's mean


def test_likeness_and_use_of_prompts(build: Callable, make_batch: Callable) -> None:
    images, samples = make_batch([2, 3])
    for sample in samples:
        sample.gt_instances.bboxes[:] = sample.gt_instances.bboxes[:1].clone()
    diagnosis = diagnose_prompts(build(matching="sequential"), [(images, samples)])
    assert diagnosis.likeness[0] == pytest.approx(1)  # boxes of an image are the same
    assert diagnosis.likeness[1] < 0.99
    assert diagnosis.used == 1
    images, samples = make_batch([9])
    assert diagnose_prompts(build(matching="sequential"), [(images, samples)]).used == pytest.approx(6 / 9)
    assert math.isnan(diagnose_prompts(build(), [make_batch([1])]).likeness[0])


def test_images_without_any_proposal_tell_nothing(build: Callable, make_batch: Callable) -> None:
    with pytest.raises(UserError, match="none of these images has a proposal"):
        diagnose_prompts(build(), [make_batch([0, 0])])


def test_the_model_is_left_as_it_was(build: Callable, make_batch: Callable) -> None:
    model = build().eval()
    settings, state = model.prompter.settings, {name: value.clone() for name, value in model.state_dict().items()}
    names = set(vars(model))
    diagnose_prompts(model, [make_batch([2])])
    assert not model.training
    assert model.prompter.settings == settings
    assert set(vars(model)) == names
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
