"""Stage 1 on a GPU that is not there: it makes the proposals of a CPU, and the GPU waits only where it has to."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from stage1_proposals.jobs.builder import ShardBuilder
from stage1_proposals.jobs.request import Job
from stage1_proposals.jobs.store import open_store
from tests.fake_gpu import DOWN, SIZE, UP, fake_gpu

# Where the GPU waits, besides for the copy of what a generator makes of a batch.
RUN_LENGTHS = {
    ("mask_rle.py:mask_changes", SIZE),  # how many there are
    ("mask_rle.py:mask_changes", UP),  # rows of pixels between rows of cells
    ("mask_rle.py:batch_mask_changes", UP),  # which images have a size in common
    ("mask_rle.py:batch_mask_changes", DOWN),
}
WAITS = {
    "saliency": RUN_LENGTHS | {("saliency.py:__call__", DOWN)},
    "merging": RUN_LENGTHS | {("merging.py:__call__", DOWN), ("merging.py:__call__", UP)},  # trees are of the CPU
    "parts": RUN_LENGTHS
    | {("saliency.py:__call__", DOWN), ("connected.py:part_with", DOWN), ("connected.py:part_with", UP)},
}
GENERATORS = {
    "saliency": {},
    "merging": {"name": "merging", "min_cells": 1},
    "parts": {"nms": "matrix", "component": "seed", "pooling": "bilinear", "similarity": "dot"},
}


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", GENERATORS)
def test_a_shard(name: str, precision: str, make_job: Callable[..., Job]) -> None:
    job = make_job(generator=GENERATORS[name], precision=precision)
    builder = ShardBuilder(job.recipe, job.request(), open_store("nowhere"), retry_failed=False)
    expected, _ = builder._records(job.task(0), lambda count: None)
    with fake_gpu() as gpu:
        builder.backbone.to("cuda")
        builder.recipe = replace(job.recipe, device="cuda")
        gpu.waits.clear()
        found, _ = builder._records(job.task(0), lambda count: None)
    assert len(found) == 4
    assert sum(map(len, found))
    for one, other in zip(found, expected, strict=True):
        assert one.rle == other.rle
        np.testing.assert_array_equal(one.feature, other.feature)
    assert set(gpu.waits) == WAITS[name]
