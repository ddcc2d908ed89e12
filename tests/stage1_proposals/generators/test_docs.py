"""docs/proposals.md names the generators there are, and its example is one."""

import re
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from stage1_proposals.generators.base import Batch, ImageInfo, ProposalGenerator
from stage1_proposals.generators.registry import build_generator
from stage1_proposals.jobs.request import Job
from stage1_proposals.jobs.run import run
from stage1_proposals.shards import ShardSet, verify_shard

ROOT = Path(__file__).parents[3]
TEXT = (ROOT / "docs" / "proposals.md").read_text(encoding="utf-8")
EXAMPLE = {"name": "my_module:ComponentGenerator", "components": 3}


@pytest.fixture
def example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ProposalGenerator:
    """The page's generator, its module where Python finds it."""
    (block,) = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    (tmp_path / "my_module.py").write_text(block)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "my_module", raising=False)
    return build_generator(EXAMPLE)


def test_every_generator_is_named() -> None:
    configs = {path.stem for path in (ROOT / "configs" / "proposals").glob("*.toml")}
    (table,) = [part for part in TEXT.split("\n\n") if part.startswith("| generator | masks |")]
    assert set(re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)) == configs


@pytest.mark.usefixtures("example")
def test_the_example_makes_shards(make_job: Callable[..., Job], tmp_path: Path) -> None:
    run(make_job(generator=EXAMPLE), tmp_path / "shards", 0, lambda _: None)
    shards = ShardSet.open(tmp_path / "shards")
    assert [verify_shard(path) for path in shards.shard_paths] == list(shards.entries)
    assert shards.request.generator == EXAMPLE | {"short_side": 64, "long_side": 128}
    for record in shards.records():
        assert 1 < len(record) <= 6
        assert record.score.tolist() == sorted(record.score, reverse=True)
        assert ((record.score > 0.5) & (record.score <= 1)).all()
        assert np.isfinite(record.feature).all()
        assert (record.area > 0).all()


def test_the_example_sees_each_image_alone(example: ProposalGenerator) -> None:
    """Also one that is the same everywhere."""
    features = torch.stack([torch.ones(8, 4, 5), torch.randn(8, 4, 5, generator=torch.Generator().manual_seed(0))])
    images = [ImageInfo(number, f"{number}.jpg", (40, 50)) for number in range(2)]
    for feature, image, together in zip(features, images, example(Batch(features, images)), strict=True):
        (alone,) = example(Batch(feature[None], [image]))
        assert list(alone.rle) == list(together.rle)
    assert len(together) == 6
