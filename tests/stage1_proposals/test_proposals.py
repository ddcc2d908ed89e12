"""From tensors to a shard's row."""

import numpy as np
import torch

from stage1_proposals.proposals import Proposals, to_record


def proposals(masks: torch.Tensor, dim: int = 3) -> Proposals:
    count = len(masks)
    return Proposals(masks, torch.rand(count), torch.rand(count, 2), torch.randn(count, dim))


def test_a_record_holds_the_masks_their_tight_boxes_and_areas() -> None:
    masks = torch.zeros(2, 20, 30, dtype=torch.bool)
    masks[0, 3:7, 5:11] = True
    masks[1, 19, 0] = True
    record = to_record(proposals(masks), 7, "a.jpg", (20, 30))
    assert (record.image_id, record.file_name, record.height, record.width) == (7, "a.jpg", 20, 30)
    assert record.bbox.tolist() == [[5, 3, 11, 7], [0, 19, 1, 20]]
    assert record.area.tolist() == [24, 1]
    assert np.array_equal(record.masks(), masks.numpy())


def test_a_record_keeps_scores_seeds_and_features() -> None:
    given = proposals(torch.ones(3, 4, 4, dtype=torch.bool))
    record = to_record(given, 1, "a.jpg", (4, 4))
    assert np.array_equal(record.score, given.scores.numpy())
    assert np.array_equal(record.seed, given.seeds.numpy())
    assert np.array_equal(record.feature, given.features.numpy().astype(np.float16))


def test_a_records_types_are_the_formats() -> None:
    for count in (0, 2):
        record = to_record(proposals(torch.ones(count, 4, 5, dtype=torch.bool)), 1, "a.jpg", (4, 5))
        assert len(record) == count
        assert (record.bbox.shape, record.bbox.dtype) == ((count, 4), np.float32)
        assert (record.score.shape, record.score.dtype) == ((count,), np.float32)
        assert (record.area.shape, record.area.dtype) == ((count,), np.int64)
        assert (record.seed.shape, record.seed.dtype) == ((count, 2), np.float32)
        assert (record.feature.shape, record.feature.dtype) == ((count, 3), np.float16)
        assert record.masks().shape == (count, 4, 5)


def test_indexing_takes_the_same_rows_of_everything() -> None:
    given = proposals(torch.rand(4, 3, 3) > 0.5)
    taken = given[torch.tensor([2, 0])]
    assert len(taken) == 2
    for name in ("masks", "scores", "seeds", "features"):
        assert torch.equal(getattr(taken, name), getattr(given, name)[[2, 0]])
