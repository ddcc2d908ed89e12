"""`propose`, as a notebook calls it."""

from pathlib import Path

import pytest

import stage1_proposals
from stage1_proposals.common.errors import UserError
from tests.shard_sets import hashes


def test_images_become_a_shard_set_that_is_continued(image_folder: Path, tmp_path: Path) -> None:
    done: list[int] = []
    sizes = {"short_side": 64, "long_side": 128, "images_per_shard": 7}
    options = {"changes": ["max_proposals=3"], "sizes": sizes, "device": "cpu", "progress": done.append}
    shards = stage1_proposals.propose(image_folder, tmp_path / "shards", **options)
    assert shards.image_count == 12
    assert 0 < shards.proposal_count <= 36
    assert shards.request.generator["max_proposals"] == 3
    assert sum(done) == 14  # the two that are no images count, too
    made = hashes(tmp_path / "shards")
    shards.shard_paths[0].unlink()
    assert stage1_proposals.propose(str(image_folder), str(tmp_path / "shards"), **options).entries == shards.entries
    assert hashes(tmp_path / "shards") == made


def test_what_cannot_be_used_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such folder, nor a JSON or a list of images"):
        stage1_proposals.propose(tmp_path / "none", tmp_path / "shards")
    with pytest.raises(AttributeError, match="has no attribute 'proposes'"):
        _ = stage1_proposals.proposes
