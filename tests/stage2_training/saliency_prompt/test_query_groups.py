from collections.abc import Callable

import pytest
import torch
from mmcv.cnn.bricks.transformer import MultiheadAttention

from stage1_proposals.common.errors import UserError
from stage2_training.saliency_prompt.matching import Prompts, match_prompts
from stage2_training.saliency_prompt.query_groups import group_mask, masked_attention


def test_queries_are_dealt_to_prompts_in_equal_groups() -> None:
    """UP-DETR's 10 patches on 100 queries; of 3 patches, one has a query more. Each image is shuffled by itself."""
    torch.manual_seed(0)
    counts = torch.tensor([10, 3, 0])
    prompts = Prompts(torch.zeros(3, 10, 4), counts, torch.zeros(3, 4))
    index = match_prompts(torch.zeros(100, 4), prompts, "random")
    sizes = [torch.bincount(row, minlength=10).tolist() for row in index]
    assert sizes == [[10] * 10, [34, 33, 33] + [0] * 7, [100] + [0] * 9]
    assert index[0].tolist() != sorted(index[0].tolist())
    again = match_prompts(torch.zeros(100, 4), prompts, "random")
    assert not torch.equal(index[0], again[0])


def test_the_mask_keeps_groups_apart() -> None:
    index = torch.tensor([[0, 1, 0, 2], [1, 1, 0, 0]])
    mask = group_mask(index)
    for image in range(2):
        for query in range(4):
            for other in range(4):
                assert mask[image, query, other] == (index[image, query] != index[image, other])


@pytest.mark.parametrize("heads", [1, 2])
def test_a_query_attends_to_its_own_group_alone(heads: int) -> None:
    """As if each group were computed by itself; without a mask, or after the context, as ever."""
    torch.manual_seed(0)
    attention = MultiheadAttention(8, heads, batch_first=True).eval()
    queries, positions = torch.randn(2, 2, 6, 8)
    index = torch.tensor([[0, 1, 0, 1, 2, 0], [3, 3, 3, 0, 0, 0]])
    plain = attention(queries, query_pos=positions)
    with masked_attention([attention], lambda: group_mask(index)):
        grouped = attention(queries, query_pos=positions)
    for image in range(2):
        for group in index[image].unique():
            rows = index[image] == group
            alone = attention(queries[image, rows][None], query_pos=positions[image, rows][None])
            torch.testing.assert_close(grouped[image, rows], alone[0])
    assert not torch.allclose(grouped, plain)
    assert torch.equal(attention(queries, query_pos=positions), plain)
    with masked_attention([attention], lambda: None):
        assert torch.equal(attention(queries, query_pos=positions), plain)


@pytest.mark.parametrize("name", ["detr", "deformable_detr"])
def test_detectors_keep_their_groups_apart(name: str, build_adapted: Callable, make_batch: Callable) -> None:
    """What a query becomes does not depend on queries of other groups, here those of the last prompt."""
    settings = {"matching": "sequential", "drop_prob": 0.0}
    changes = {}
    for groups in (True, False):
        model, batch = build_adapted(name, settings | {"groups": groups}), make_batch([3])
        before = model.prompted_pass(*batch).queries[-1][0]
        with torch.no_grad():
            model.query_embedding.weight[2::3] += 1
        after = model.prompted_pass(*batch).queries[-1][0]
        changes[groups] = [(before[first::3] - after[first::3]).abs().max().item() for first in range(3)]
    assert changes[True][:2] == [pytest.approx(0, abs=1e-6)] * 2
    assert min(changes[True][2], *changes[False]) > 1e-3


def test_models_with_another_attention_are_refused(build_adapted: Callable, build_knet: Callable) -> None:
    with pytest.raises(UserError, match=r"saliency_prompt\.groups: SaliencyPromptQueryInst cannot keep queries apart"):
        build_adapted("queryinst", {"groups": True})
    with pytest.raises(UserError, match=r"saliency_prompt\.groups: K-Net cannot keep its kernels apart"):
        build_knet(type="SaliencyPromptKNet", saliency_prompt={"feature_dim": 5, "groups": True})


@pytest.mark.parametrize("matching", ["none", "mean"])
def test_groups_need_different_prompts(build_adapted: Callable, matching: str) -> None:
    with pytest.raises(UserError, match=rf"saliency_prompt\.groups: with matching={matching} there are no prompts"):
        build_adapted("deformable_detr", {"matching": matching, "groups": True})
