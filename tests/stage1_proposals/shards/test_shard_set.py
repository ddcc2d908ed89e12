"""The set as its manifest describes it."""

from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from stage1_proposals.shards import (
    ClusterRecord,
    ImageRecord,
    Manifest,
    ShardEntry,
    ShardError,
    ShardSet,
    shard_file_name,
    verify_shard,
    write_clusters,
)
from tests.shard_sets import fix_attribute_lengths, make_request

Contents = tuple[list[ImageRecord], list[tuple[str, str]], int]
REQUEST = make_request()


@pytest.fixture
def directory(tmp_path: Path, write: Callable[..., str], some_contents: Contents) -> Path:
    """A finished set of two shards of three images."""
    entries = []
    for index in range(2):
        name = shard_file_name(index, 2)
        content = write(tmp_path / name, some_contents)
        entries.append(ShardEntry(name, images=3, proposals=5, failures=1, content_sha256=content))
    Manifest(REQUEST, tuple(entries)).write(tmp_path)
    return tmp_path


def test_a_set_is_known_from_its_manifest(directory: Path) -> None:
    shards = ShardSet.open(directory)
    assert shards.shard_paths == [directory / shard_file_name(index, 2) for index in range(2)]
    assert (shards.image_counts, shards.image_count, shards.feature_dim) == ([3, 3], 6, 3)
    assert shards.image_root == "/images"
    assert (shards.proposal_count, sum(entry.failures for entry in shards.entries)) == (10, 2)
    assert shards.backbone == REQUEST.backbone
    assert shards.request == REQUEST


def test_a_shard_that_is_not_the_manifests_any_more_is_refused(
    directory: Path, write: Callable[..., str], some_contents: Contents
) -> None:
    shards = ShardSet.open(directory)
    with closing(shards.reader(1)) as reader:
        assert len(reader) == 3
    records, failures, feature_dim = some_contents
    write(shards.shard_paths[1], (records[:1], failures, feature_dim))
    with pytest.raises(
        ShardError, match=r"shard-00001-of-00002\.h5: was replaced by another shard since manifest\.json was read"
    ):
        shards.reader(1)
    shards.shard_paths[1].unlink()
    with pytest.raises(
        ShardError, match=r"shard-00001-of-00002\.h5: is missing; restore it, or run the same `make prop"
    ):
        shards.reader(1)


def test_clusters_do_not_make_a_shard_another(directory: Path) -> None:
    shards = ShardSet.open(directory)
    write_clusters(shards.shard_paths[0], np.zeros(5, np.int32), ClusterRecord(2))
    with closing(shards.reader(0)) as reader:
        assert reader.clusters == ClusterRecord(2)


def test_an_image_is_found_by_its_position(directory: Path) -> None:
    assert [ShardSet.open(directory).locate(position) for position in range(6)] == [
        (shard, row) for shard in range(2) for row in range(3)
    ]


def test_empty_shards_have_no_positions() -> None:
    counts = [0, 2, 0, 0, 1]
    shards = ShardSet(Path("a"), REQUEST, tuple(ShardEntry("", count, 0, 0, "") for count in counts))
    assert [shards.locate(position) for position in range(3)] == [(1, 0), (1, 1), (4, 0)]


def test_clusters_are_those_of_every_shard_or_refused(directory: Path) -> None:
    shards = ShardSet.open(directory)
    first, second = shards.shard_paths
    with pytest.raises(ShardError, match=r"no clusters; `make cluster SHARDS=.*` makes them"):
        shards.clusters()
    ids = np.zeros(5, np.int32)
    write_clusters(second, ids, ClusterRecord(2))
    with pytest.raises(ShardError, match=r"clusters unfinished, 1 of 2 shards have them; run the same `make cluster`"):
        shards.clusters()
    write_clusters(first, ids, ClusterRecord(3))
    with pytest.raises(ShardError, match="clusters unfinished, 1 of 2"):
        shards.clusters()
    write_clusters(first, ids, ClusterRecord(2))
    assert shards.clusters() == ClusterRecord(2)


def test_a_directory_without_a_set_is_refused(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "gone"):
        with pytest.raises(ShardError, match="no shard set here"):
            ShardSet.open(path)


def test_an_unfinished_set_is_refused_with_its_progress(directory: Path) -> None:
    Manifest(REQUEST, None).write(directory)
    (directory / shard_file_name(1, 2)).unlink()
    with pytest.raises(ShardError, match="unfinished, 1 of 2 shards; run the same `make proposals` again"):
        ShardSet.open(directory)


def test_a_missing_shard_is_named(directory: Path) -> None:
    (directory / shard_file_name(1, 2)).unlink()
    with pytest.raises(ShardError, match=r"1 shards are missing.*shard-00001-of-00002"):
        ShardSet.open(directory)


def test_shards_of_before_may_stand_beside_new_ones(directory: Path) -> None:
    """Text attributes were of fixed length, first."""
    shards = ShardSet.open(directory)
    records = [(record.file_name, record.rle) for record in shards.records()]
    fix_attribute_lengths(shards.shard_paths[0])
    assert [(record.file_name, record.rle) for record in ShardSet.open(directory).records()] == records
    for index in range(2):
        with closing(shards.reader(index)) as reader:
            assert reader.image_root == "/images/ünï"
        assert verify_shard(shards.shard_paths[index]) == shards.entries[index]
