"""The optional cluster column, and the centroids beside the shards."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from stage1_proposals.shards import (
    ClusterRecord,
    ImageRecord,
    ShardError,
    ShardReader,
    read_centroids,
    verify_shard,
    write_centroids,
    write_clusters,
)
from stage1_proposals.shards.reader import read_columns
from stage1_proposals.shards.schema import CLUSTER, content_sha256
from tests.shard_sets import fix_attribute_lengths

Contents = tuple[list[ImageRecord], list[tuple[str, str]], int]
CLUSTER_IDS = np.array([2, 0, 1, 2, 2], np.int32)
HOW = ClusterRecord(classes=3, method="by händ")


def test_a_shard_without_clusters_has_none(shard: Path) -> None:
    reader = ShardReader(shard)
    assert reader.clusters is None
    assert reader.read(0).cluster is None


def test_what_is_written_is_read_with_its_image(shard: Path) -> None:
    write_clusters(shard, CLUSTER_IDS, HOW)
    reader = ShardReader(shard)
    assert reader.clusters == HOW
    clusters = [reader.read(index).cluster for index in range(3)]
    assert [None if cluster is None else cluster.tolist() for cluster in clusters] == [[2, 0, 1], [], [2, 2]]
    assert {cluster.dtype.str for cluster in clusters if cluster is not None} == {"<i4"}


def test_a_shard_of_before_may_get_them(shard: Path) -> None:
    fix_attribute_lengths(shard)
    attributes = ShardReader(shard).attributes
    write_clusters(shard, CLUSTER_IDS, HOW)
    assert verify_shard(shard).proposals == 5
    assert (ShardReader(shard).clusters, ShardReader(shard).attributes) == (HOW, attributes)
    fix_attribute_lengths(shard)  # clustered before, too
    assert verify_shard(shard).proposals == 5
    assert ShardReader(shard).clusters == HOW


def test_all_else_stays_the_content_hash_and_strangers_data_too(shard: Path) -> None:
    with h5py.File(shard, "r+") as file:
        file["mine/notes"] = [1, 2]
        file.attrs["mine"] = "note"
    row, attributes = verify_shard(shard), ShardReader(shard).attributes
    with h5py.File(shard) as file:
        before = read_columns(file)
    write_clusters(shard, CLUSTER_IDS, HOW)
    assert (verify_shard(shard), ShardReader(shard).attributes) == (row, attributes)
    with h5py.File(shard) as file:
        assert content_sha256(read_columns(file)) == content_sha256(before) == row.content_sha256
        assert file["mine/notes"][...].tolist() == [1, 2]
        assert file.attrs["mine"] == "note"


def test_it_is_checksummed_like_the_rest(shard: Path) -> None:
    write_clusters(shard, CLUSTER_IDS, HOW)
    with h5py.File(shard) as file:
        assert file[CLUSTER].fletcher32
        description = file[CLUSTER].attrs["clusters"]
        assert json.loads(description) == HOW.to_json()
        chunk = file[CLUSTER].id.get_chunk_info(0)
    whole = shard.read_bytes()
    for offset in (chunk.byte_offset, whole.index(description.encode()) + 2):
        damaged = bytearray(whole)
        damaged[offset] ^= 1
        shard.write_bytes(damaged)
        with pytest.raises(ShardError, match=shard.name):
            verify_shard(shard)


def test_clustering_anew_replaces_and_does_not_grow_the_file(shard: Path) -> None:
    write_clusters(shard, CLUSTER_IDS, HOW)
    size = shard.stat().st_size
    for _ in range(5):
        write_clusters(shard, CLUSTER_IDS[::-1].copy(), ClusterRecord(classes=4, method="otherwise"))
    assert abs(shard.stat().st_size - size) < 1000
    assert ShardReader(shard).read(2).cluster.tolist() == [0, 2]  # type: ignore[union-attr]
    assert ShardReader(shard).clusters == ClusterRecord(classes=4, method="otherwise")


def test_an_empty_shard_may_have_them(tmp_path: Path, write: Callable[..., str]) -> None:
    path = tmp_path / "a.h5"
    write(path, ([], [], 2))
    write_clusters(path, CLUSTER_IDS[:0], HOW)
    assert verify_shard(path).proposals == 0
    assert ShardReader(path).clusters == HOW


def test_a_disk_that_fills_up_leaves_the_shard_as_it_was(shard: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    before = shard.read_bytes()
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_clusters(shard, CLUSTER_IDS, HOW)
    assert shard.read_bytes() == before
    assert list(shard.parent.iterdir()) == [shard]


def replace(values: np.ndarray, clusters: str = json.dumps(HOW.to_json())) -> Callable[[h5py.File], None]:
    def edit(file: h5py.File) -> None:
        del file[CLUSTER]
        file[CLUSTER] = values
        file[CLUSTER].attrs["clusters"] = clusters  # without a hash

    return edit


def drop_attribute(file: h5py.File) -> None:
    del file[CLUSTER].attrs["clusters"]


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (replace(CLUSTER_IDS[:4]), "proposals/cluster has 4 rows, not 5"),
        (replace(CLUSTER_IDS.astype("i8")), "proposals/cluster is <i8 with 1 dimensions"),
        (replace(CLUSTER_IDS[:, None]), "proposals/cluster is <i4 with 2 dimensions"),
        (replace(CLUSTER_IDS + 1), "proposals/cluster has values outside 0 to 2"),
        (replace(CLUSTER_IDS - 1), "proposals/cluster has values outside 0 to 2"),
        (replace(CLUSTER_IDS, "{"), "proposals/cluster is damaged"),
        (replace(CLUSTER_IDS, "[]"), "damaged"),
        (replace(CLUSTER_IDS, "{}"), "damaged"),
        (drop_attribute, "proposals/cluster is damaged"),
    ],
)
def test_a_column_that_contradicts_the_rest_is_found(
    shard: Path, edit: Callable[[h5py.File], None], message: str
) -> None:
    write_clusters(shard, CLUSTER_IDS, HOW)
    with h5py.File(shard, "r+") as file:
        edit(file)
    with pytest.raises(ShardError, match=message):
        verify_shard(shard)


def test_a_flipped_byte_of_a_clustered_shard_is_found_or_harmless(shard: Path) -> None:
    write_clusters(shard, CLUSTER_IDS, HOW)

    def seen() -> object:
        row, reader = verify_shard(shard), ShardReader(shard)
        try:
            return row, reader.clusters, [vars(reader.read(index))["cluster"].tolist() for index in range(3)]
        finally:
            reader.close()

    sound, whole = seen(), shard.read_bytes()
    found = 0
    for position in np.random.default_rng(1).integers(0, len(whole), 100):
        data = bytearray(whole)
        data[position] ^= 0xFF  # any other exception fails the test
        shard.write_bytes(data)
        try:
            assert seen() == sound, position
        except ShardError:
            found += 1
    assert found > 50


def test_centroids_are_read_as_written_or_not_at_all(tmp_path: Path) -> None:
    assert read_centroids(tmp_path) is None
    centroids = np.random.default_rng(0).standard_normal((3, 5)).astype(np.float32)
    write_centroids(tmp_path, centroids, HOW)
    (path,) = tmp_path.iterdir()
    found = read_centroids(tmp_path)
    assert found is not None
    assert np.array_equal(found[0], centroids)
    assert found[1] == HOW
    path.write_bytes(path.read_bytes()[:-10])
    assert read_centroids(tmp_path) is None
    with h5py.File(path, "w") as file:
        file["other"] = 1
    assert read_centroids(tmp_path) is None
