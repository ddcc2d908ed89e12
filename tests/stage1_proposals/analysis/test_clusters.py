"""Clusters: nearest centroids, the same again, gone on with after an interruption."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from stage1_proposals.analysis.clusters import assign, cluster_shards, train_centroids
from stage1_proposals.analysis.index import unit_features
from stage1_proposals.common.errors import UserError
from stage1_proposals.common.files import exclusive_lock
from stage1_proposals.shards import ShardReader, ShardSet, read_centroids, verify_shard

ROOT = Path(__file__).parents[3]


@pytest.fixture
def shards(write_shards: Callable[..., ShardSet], make_record: Callable, rectangles: Callable) -> ShardSet:
    """Four shards of two images with five proposals each, in three directions; a fifth shard is empty."""
    rng = np.random.default_rng(0)
    directions = rng.standard_normal((3, 4))
    records = []
    for image in range(8):
        masks = rectangles([(2 * m, image, 2 * m + 9, image + 8) for m in range(5)], 24, 32)
        features = directions[rng.integers(0, 3, 5)] + 0.1 * rng.standard_normal((5, 4))
        records.append(make_record(image, f"{image}.png", masks, features))
    return write_shards([*(records[first : first + 2] for first in range(0, 8, 2)), []], images=False)


def files(shards: ShardSet) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in shards.directory.iterdir() if path.name != ".lock"}


def column(shards: ShardSet) -> np.ndarray:
    return np.concatenate([ShardReader(path).column("proposals/cluster") for path in shards.shard_paths])


def test_every_proposal_is_in_the_cluster_of_its_nearest_centroid(shards: ShardSet) -> None:
    done: list[int] = []
    sizes = cluster_shards(shards, 3, 0, done.append)
    assert sum(done) == 5
    stored = read_centroids(shards.directory)
    assert stored is not None
    centroids, clusters = stored
    assert shards.clusters() == clusters
    assert (clusters.classes, clusters.seed, clusters.content_sha256) == (3, 0, shards.content_sha256)
    assert np.allclose(np.linalg.norm(centroids, axis=1), 1, atol=1e-5)
    features = np.concatenate([unit_features(ShardReader(path)) for path in shards.shard_paths])
    assert np.array_equal(column(shards), (features @ centroids.T).argmax(axis=1))
    assert sizes.tolist() == np.bincount(column(shards), minlength=3).tolist()
    for entry, path in zip(shards.entries, shards.shard_paths, strict=True):
        assert verify_shard(path) == entry


def test_directions_are_told_apart() -> None:
    rng = np.random.default_rng(0)
    truth = np.repeat(np.arange(3), 50)
    vectors = (np.eye(3, 8)[truth] + 0.1 * rng.standard_normal((150, 8))).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    found = assign(vectors, train_centroids(vectors, 3, seed=0))
    assert found.dtype == np.int32
    assert len(set(zip(truth, found.tolist(), strict=True))) == 3


def test_run_again_it_leaves_all_as_it_is_and_anew_it_gives_the_same(shards: ShardSet) -> None:
    sizes = cluster_shards(shards, 3, 0)
    before = files(shards)
    times = {path: path.stat().st_mtime_ns for path in shards.shard_paths}
    assert cluster_shards(shards, 3, 0).tolist() == sizes.tolist()
    assert {path: path.stat().st_mtime_ns for path in shards.shard_paths} == times
    found = column(shards)
    cluster_shards(shards, 4, 0)
    assert shards.clusters().classes == 4
    cluster_shards(shards, 3, 0)
    assert np.array_equal(column(shards), found)
    assert files(shards).keys() == before.keys()


def test_it_goes_on_with_the_centroids_it_began_with(shards: ShardSet, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(done: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cluster_shards(shards, 3, 0, interrupt)
    assert [ShardReader(path).clusters is not None for path in shards.shard_paths] == [True, *[False] * 4]
    monkeypatch.setattr("stage1_proposals.analysis.clusters.train_centroids", None)  # not called again
    cluster_shards(shards, 3, 0)
    assert shards.clusters().classes == 3


KILLED = """
import os, signal, sys
from stage1_proposals.analysis.clusters import cluster_shards
from stage1_proposals.shards import ShardSet
flushes = []
def fsync(descriptor):
    flushes.append(descriptor)
    if len(flushes) == int(sys.argv[2]):
        os.kill(os.getpid(), signal.SIGKILL)
os.fsync = fsync
cluster_shards(ShardSet.open(sys.argv[1]), 3, 0)
"""


def test_killed_at_any_time_every_shard_is_whole_and_the_work_goes_on(shards: ShardSet) -> None:
    for number in (1, 3, 5):  # when the scratch file of the centroids, of the first and of the next shard is flushed
        child = subprocess.run([sys.executable, "-c", KILLED, str(shards.directory), str(number)], cwd=ROOT)
        assert child.returncode == -signal.SIGKILL
        assert list(shards.directory.glob(".*.tmp"))
        for entry, path in zip(shards.entries, shards.shard_paths, strict=True):
            assert verify_shard(path) == entry
    cluster_shards(shards, 3, 0)
    assert not list(shards.directory.glob(".*.tmp"))
    assert shards.clusters().classes == 3


def test_a_full_disk_is_the_users_error(shards: ShardSet, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(UserError, match=r"clusters\.h5: cannot be written \(No space.*run again to go on"):
            cluster_shards(shards, 3, 0)
    cluster_shards(shards, 3, 0)


@pytest.mark.parametrize("classes", [-1, 0, 1, 41])
def test_a_number_of_classes_that_does_not_fit_is_refused(shards: ShardSet, classes: int) -> None:
    with pytest.raises(UserError, match=f"{classes} classes: use 2 to 40, the number of proposals"):
        cluster_shards(shards, classes, 0)


def test_a_directory_in_use_is_refused(shards: ShardSet) -> None:
    with exclusive_lock(shards.directory), pytest.raises(UserError, match="another run is writing there"):
        cluster_shards(shards, 3, 0)
