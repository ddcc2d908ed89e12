from dataclasses import replace
from typing import Any

import pytest
import torch
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData

from stage2_training.saliency_prompt.prompter import Prompter, PromptMap, PromptMatch
from stage2_training.saliency_prompt.settings import SaliencyPromptSettings

CHANNELS, STRIDE, SIZE = 4, 8, (64, 96)
QUERIES = torch.randn(7, CHANNELS, generator=torch.Generator().manual_seed(1))


def prompter_of(**settings: Any) -> Prompter:
    """A prompter with centred prompts from the query map, if not told otherwise."""
    measured = {"pool_from": "query_map", "center": True, "rescale": True}
    return Prompter(SaliencyPromptSettings(feature_dim=5, **measured | settings))


def maps(images: int = 2) -> PromptMap:
    generator = torch.Generator().manual_seed(0)
    query_map = torch.randn(images, CHANNELS, 8, 12, generator=generator)
    return PromptMap([torch.randn(images, CHANNELS, 2, 3, generator=generator)], lambda: query_map)


def samples(*counts: int) -> list[DetDataSample]:
    batch = []
    for count in counts:
        sample = DetDataSample(metainfo={"img_shape": SIZE, "batch_input_shape": SIZE})
        boxes = torch.tensor([[8.0 * i, 0.0, 8.0 * i + 24, 32.0] for i in range(count)]).reshape(-1, 4)
        sample.gt_instances = InstanceData(bboxes=boxes)
        batch.append(sample)
    return batch


def matched(prompter: Prompter, *counts: int, training: bool = False) -> PromptMatch:
    match = prompter.match(QUERIES, maps(len(counts)), samples(*counts), training)
    assert match is not None
    return match


def test_prompts_come_from_the_map_that_queries_are_multiplied_with() -> None:
    query_map = maps().query_map()
    expected = query_map[0, :, :4, 1:4].mean(dim=(1, 2)) - query_map[0].mean(dim=(1, 2))
    torch.testing.assert_close(matched(prompter_of(), 2, 1).prompts.features[0, 1], expected)


def test_or_from_a_level_of_the_pyramid_to_the_letter_of_the_paper() -> None:
    level = maps().levels[0]
    prompter = prompter_of(pool_from="pyramid", center=False)
    match = matched(prompter, 0, 1)
    torch.testing.assert_close(match.prompts.image_means, level.mean(dim=(2, 3)))
    whole = samples(0, 1)
    whole[1].gt_instances.bboxes = torch.tensor([[0.0, 0.0, 96.0, 64.0]])
    match = prompter.match(QUERIES, maps(), whole, training=False)
    torch.testing.assert_close(match.prompts.features[1, 0], level[1].mean(dim=(1, 2)))


@pytest.mark.parametrize("rescale", [True, False])
def test_each_query_gets_its_prompt_at_its_length_or_the_prompts_own(rescale: bool) -> None:
    prompter = prompter_of(rescale=rescale)
    match = matched(prompter, 3, 0)
    queries = QUERIES.expand(2, -1, -1)
    prompted = prompter.add(queries, match, reference=QUERIES)
    assert torch.equal(prompted[1], QUERIES)  # no proposal, no prompt
    for n, query in enumerate(QUERIES):
        prompt = match.prompts.features[0, match.index[0, n]]
        if rescale:
            prompt = prompt / prompt.norm() * query.norm()
        torch.testing.assert_close(prompted[0, n], query + prompt)


def test_a_prompt_is_dropped_wherever_it_would_be_added() -> None:
    torch.manual_seed(0)
    many = torch.randn(4000, CHANNELS)
    prompter = prompter_of(drop_prob=0.25)
    match = prompter.match(many, maps(1), samples(3), training=True)
    prompted = [prompter.add(queries, match, queries) for queries in (many[None], 2 * many[None])]
    unchanged = [(prompted[0] == many).all(dim=2), (prompted[1] == 2 * many).all(dim=2)]
    assert torch.equal(*unchanged)
    assert unchanged[0].float().mean().item() == pytest.approx(0.25, abs=0.02)
    match = prompter.match(many, maps(1), samples(3), training=False)
    assert not (prompter.add(many[None], match, many) == many).all(dim=2).any()


def test_the_control_gives_every_query_the_mean_of_its_image() -> None:
    prompter = prompter_of(matching="mean", rescale=False)
    match = matched(prompter, 2, 3)
    added = prompter.add(QUERIES.expand(2, -1, -1), match, QUERIES) - QUERIES
    expected = maps().query_map().mean(dim=(2, 3))
    torch.testing.assert_close(added, expected[:, None].expand(-1, 7, -1))


@pytest.mark.parametrize("detach", [True, False])
def test_gradients_reach_the_map_unless_prompts_are_detached(detach: bool) -> None:
    prompter, feature = prompter_of(detach=detach), maps(1).query_map().requires_grad_()
    queries = QUERIES.clone().requires_grad_()
    match = prompter.match(queries, replace(maps(1), query_map=lambda: feature), samples(2), training=True)
    prompter.add(queries.expand(1, -1, -1), match, queries).sum().backward()
    assert (queries.grad == 1).all()  # none through the length
    assert (feature.grad is None) == detach


def test_without_proposals_or_matching_there_is_no_prompt() -> None:
    assert prompter_of().match(QUERIES, maps(), samples(0, 0), training=True) is None
    assert prompter_of(matching="none").match(QUERIES, maps(), samples(1, 2), training=True) is None
    assert torch.equal(prompter_of().add(QUERIES[None], None, QUERIES), QUERIES[None])
