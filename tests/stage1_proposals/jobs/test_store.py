"""Shard sets at URLs: written whole, gone on with, refused, the same as in a directory."""

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import fsspec
import pytest
from fsspec.implementations.local import LocalFileSystem

from stage1_proposals.common.errors import UserError
from stage1_proposals.jobs.builder import build_on_node
from stage1_proposals.jobs.request import Job
from stage1_proposals.jobs.run import run
from stage1_proposals.jobs.store import LocalStore, RemoteStore, fetch, open_store, stored_manifest
from stage1_proposals.shards import MANIFEST, ShardError, ShardSet


def ignore(_: int) -> None:
    pass


@pytest.fixture(params=["memory", "file"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """An empty folder of a file system that renames nothing, as object stores, and of one that does."""
    yield {"memory": "memory://bucket/shards", "file": f"file://{tmp_path}/a bucket/shards"}[request.param]
    fsspec.filesystem("memory").store.clear()


def contents(url: str) -> dict[str, bytes]:
    """What lies there, by name."""
    file_system, path = fsspec.url_to_fs(url)
    return {os.path.basename(file): file_system.cat_file(file) for file in file_system.ls(path, detail=False)}


def put(url: str, name: str, data: bytes) -> None:
    file_system, path = fsspec.url_to_fs(url)
    file_system.pipe_file(f"{path}/{name}", data)


def hashes(url: str) -> list[str]:
    manifest = stored_manifest(open_store(url))
    assert manifest is not None
    return [entry.content_sha256 for entry in manifest.entries or ()]


@pytest.fixture
def expected(finished: Path) -> list[str]:
    return [entry.content_sha256 for entry in ShardSet.open(finished).entries]


def test_a_set_at_a_url_is_the_set_of_a_directory(
    url: str, tmp_path: Path, expected: list[str], make_job: Callable[..., Job]
) -> None:
    run(make_job(), url, 0, ignore)
    assert hashes(url) == expected
    assert sorted(contents(url)) == [MANIFEST, *(f"shard-{index:05d}-of-00004.h5" for index in range(4))]
    fetch(RemoteStore(url), LocalStore(tmp_path / "fetched"), ignore)
    assert [entry.content_sha256 for entry in ShardSet.open(tmp_path / "fetched").entries] == expected


def test_what_is_sound_stays_and_what_is_missing_or_damaged_is_built_again(
    url: str, expected: list[str], make_job: Callable[..., Job]
) -> None:
    run(make_job(), url, 0, ignore)
    before = contents(url)
    first, second, third, last = sorted(set(before) - {MANIFEST})
    file_system, path = fsspec.url_to_fs(url)
    file_system.rm_file(f"{path}/{second}")
    put(url, third, before[third][: len(before[third]) // 2])
    put(url, first, before[first] + b"marked, and sound all the same")
    put(url, f".{last}.elsewhere-1.tmp", b"half")
    reported: list[int] = []
    run(make_job(), url, 0, reported.append)
    after = contents(url)
    assert hashes(url) == expected
    assert after[first].endswith(b"marked, and sound all the same")
    assert sum(reported) == 14
    if url.startswith("file"):
        assert set(after) == set(before)


def test_other_work_at_a_url_is_refused_naming_it(url: str, make_job: Callable[..., Job]) -> None:
    run(make_job(images_per_shard=20), url, 0, ignore)
    before = contents(url)
    with pytest.raises(UserError, match=f"^{url} was made with other settings: images_per_shard was 20, requested 4"):
        run(make_job(), url, 0, ignore)
    put(url, MANIFEST, b"{")
    with pytest.raises(ShardError, match=f"^{url}/manifest.json: not JSON"):
        run(make_job(), url, 0, ignore)
    assert contents(url) == before | {MANIFEST: b"{"}


def test_an_upload_that_fails_leaves_nothing_under_the_final_name(
    tmp_path: Path, expected: list[str], make_job: Callable[..., Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"file://{tmp_path}/shards"

    def put_half(self: LocalFileSystem, source: str, target: str, **_: Any) -> None:
        if "shard-00002" in target:
            Path(target).write_bytes(Path(source).read_bytes()[:1000])
            raise ConnectionResetError("the line is dead")
        shutil.copyfile(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(LocalFileSystem, "put_file", put_half)
        with pytest.raises(UserError, match=rf"^{url}: cannot write shard-00002-of-00004.h5 \(the line is dead\)"):
            run(make_job(), url, 0, ignore)
    assert {path.name for path in (tmp_path / "shards").glob("*.h5")} == {
        f"shard-{index:05d}-of-00004.h5" for index in (0, 1, 3)
    }
    run(make_job(), url, 0, ignore)
    assert hashes(url) == expected
    assert not list((tmp_path / "shards").glob(".*"))


def test_a_store_that_cannot_be_read_is_not_taken_for_an_empty_one(
    tmp_path: Path, make_job: Callable[..., Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    def get_file(*_: Any, **__: Any) -> None:
        raise PermissionError("Forbidden")

    monkeypatch.setattr(LocalFileSystem, "get_file", get_file)
    with pytest.raises(UserError, match=rf"^file://{tmp_path}/shards: cannot read manifest.json \(Forbidden\)"):
        run(make_job(), f"file://{tmp_path}/shards", 0, ignore)
    assert not (tmp_path / "shards").exists()


def test_two_runs_of_one_request_at_once_end_with_the_same_set(
    url: str, expected: list[str], make_job: Callable[..., Job]
) -> None:
    """The second begins and ends while the first is at its first shard."""
    done: list[int] = []

    def second(count: int) -> None:
        if count and not done:
            done.append(0)
            run(make_job(), url, 0, done.append)
            assert hashes(url) == expected

    run(make_job(), url, 0, second)
    assert sum(done) == 14
    assert hashes(url) == expected


def test_a_run_whose_place_another_takes_is_refused_at_its_end(url: str, make_job: Callable[..., Job]) -> None:
    """Both found the place empty; the last to write the manifest has it."""
    taken: list[int] = []

    def take(count: int) -> None:
        if count and not taken:
            taken.append(0)
            file_system, path = fsspec.url_to_fs(url)
            file_system.rm_file(f"{path}/{MANIFEST}")
            run(make_job(images_per_shard=20), url, 0, ignore)

    with pytest.raises(UserError, match="was made with other settings: images_per_shard was 20, requested 4"):
        run(make_job(), url, 0, take)
    assert len(hashes(url)) == 1


def test_images_that_a_worker_does_not_see_are_refused(tmp_path: Path, make_job: Callable[..., Job]) -> None:
    job = make_job()
    request = replace(job.request(), image_root=str(tmp_path / "gone"))
    with pytest.raises(UserError, match=rf"^on .*: no image folder {tmp_path}/gone on this node; each needs it"):
        build_on_node(job.recipe, request, LocalStore(tmp_path), False)


def test_urls_that_cannot_be_used_are_refused(tmp_path: Path) -> None:
    fsspec.register_implementation("far", "no_such_package.FileSystem", errtxt="Install no_such_package", clobber=True)
    with pytest.raises(UserError, match=r"^far://bucket/shards: Install no_such_package, into the \.venv of every"):
        open_store("far://bucket/shards")
    with pytest.raises(UserError, match=r"^nowhere://bucket: cannot be used \(Protocol not known: nowhere\)"):
        open_store("nowhere://bucket")


def test_a_password_in_a_url_is_not_printed() -> None:
    assert str(RemoteStore("memory://me:secret@host/shards")) == "memory://me:***@host/shards"
    assert str(RemoteStore("memory://host/a:b/c")) == "memory://host/a:b/c"
