"""A set from one place to another, verified on its way."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from stage1_proposals.analysis.clusters import cluster_shards
from stage1_proposals.common.errors import UserError
from stage1_proposals.jobs.store import LocalStore, RemoteStore, fetch
from stage1_proposals.shards import Manifest, ShardError, ShardSet, verify_shard


def ignore(_: int) -> None:
    pass


@pytest.fixture
def source(finished: Path, tmp_path: Path) -> Path:
    """A copy of the finished set, to do harm to."""
    return Path(shutil.copytree(finished, tmp_path / "source"))


def test_a_set_is_brought_whole_and_what_is_there_is_not_brought_again(source: Path, tmp_path: Path) -> None:
    target, reported = LocalStore(tmp_path / "target"), list[int]()
    fetch(RemoteStore(f"file://{source}"), target, reported.append)
    shards = ShardSet.open(target.directory)
    assert shards.entries == ShardSet.open(source).entries
    assert [verify_shard(path) for path in shards.shard_paths] == list(shards.entries)
    assert reported == [1, 1, 1, 1]
    first, second, *_ = shards.shard_paths
    before = first.stat().st_mtime_ns
    second.write_bytes(second.read_bytes()[:-1])
    fetch(RemoteStore(f"file://{source}"), target, reported.append)
    assert first.stat().st_mtime_ns == before
    assert verify_shard(second) == shards.entries[1]
    assert sum(reported) == 8


@pytest.mark.parametrize("harm", ["damaged", "missing", "another"])
def test_a_shard_that_is_not_the_manifests_is_named_and_the_rest_stays(source: Path, tmp_path: Path, harm: str) -> None:
    paths = ShardSet.open(source).shard_paths
    paths[2].unlink()
    if harm == "damaged":
        paths[2].write_bytes(b"no shard")
    elif harm == "another":
        shutil.copy(paths[1], paths[2])
    url = f"file://{source}"
    with pytest.raises(ShardError, match=f"^{url}/{paths[2].name}: missing, damaged or not the shard in the manifest"):
        fetch(RemoteStore(url), LocalStore(tmp_path / "target"), ignore)
    assert len(list((tmp_path / "target").glob("*.h5"))) == 2
    with pytest.raises(ShardError, match="unfinished, 2 of 4 shards"):
        ShardSet.open(tmp_path / "target")


def test_what_is_no_finished_set_is_refused(source: Path, tmp_path: Path) -> None:
    target = LocalStore(tmp_path / "target")
    with pytest.raises(ShardError, match=f"^file://{tmp_path}/none: no shard set here; `make proposals"):
        fetch(RemoteStore(f"file://{tmp_path}/none"), target, ignore)
    Manifest(ShardSet.open(source).request, None).write(source)
    with pytest.raises(ShardError, match=f"^file://{source}: unfinished; "):
        fetch(RemoteStore(f"file://{source}"), target, ignore)
    assert not target.directory.exists()


def test_another_set_in_the_directory_is_left_alone(source: Path, finished: Path, tmp_path: Path) -> None:
    shards = ShardSet.open(finished)
    Manifest(replace(shards.request, image_count=3), shards.entries).write(source)
    before = {path.name: path.read_bytes() for path in source.iterdir()}
    with pytest.raises(UserError, match=f"^{source} holds another shard set than file://"):
        fetch(RemoteStore(f"file://{finished}"), LocalStore(source), ignore)
    assert {path.name: path.read_bytes() for path in source.iterdir()} == before | {".lock": b""}


def test_clusters_made_since_are_brought_too(source: Path, tmp_path: Path) -> None:
    target = LocalStore(tmp_path / "target")
    fetch(RemoteStore(f"file://{source}"), target, ignore)
    cluster_shards(ShardSet.open(source), 3, seed=0)
    fetch(RemoteStore(f"file://{source}"), target, ignore)
    shards = ShardSet.open(target.directory)
    assert shards.clusters() == ShardSet.open(source).clusters()
    assert (target.directory / "clusters.h5").read_bytes() == (source / "clusters.h5").read_bytes()
    before = [path.stat().st_mtime_ns for path in shards.shard_paths]
    fetch(RemoteStore(f"file://{source}"), target, ignore)
    assert [path.stat().st_mtime_ns for path in shards.shard_paths] == before
