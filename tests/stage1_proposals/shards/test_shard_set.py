"""The manifest: what was asked for and what came of it."""

import json
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stage1_proposals.shards import (
    ImageRecord,
    ShardError,
    ShardSet,
    read_manifest,
    shard_file_name,
    write_clusters,
    write_manifest,
)

Contents = tuple[list[ImageRecord], list[tuple[str, str]], int]
REQUEST: dict[str, Any] = {
    "image_root": "/images",
    "shard_count": 2,
    "backbone": {"name": "lite0_imagenet", "weights": None, "sha256": "ab", "stride": 32, "feature_dim": 3},
}


@pytest.fixture
def directory(tmp_path: Path, write: Callable[..., str], some_contents: Contents) -> Path:
    """A finished set of two shards of three images."""
    rows = []
    for index in range(2):
        name = shard_file_name(index, 2)
        content = write(tmp_path / name, some_contents)
        rows.append({"file": name, "images": 3, "proposals": 5, "failures": 1, "content_sha256": content})
    write_manifest(tmp_path, REQUEST, rows)
    return tmp_path


def test_a_set_is_known_from_its_manifest(directory: Path) -> None:
    shards = ShardSet.open(directory)
    assert shards.shard_paths == [directory / shard_file_name(index, 2) for index in range(2)]
    assert (shards.image_counts, shards.image_count, shards.feature_dim) == ([3, 3], 6, 3)
    assert shards.image_root == "/images"
    assert shards.backbone == REQUEST["backbone"]
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
        ShardError, match=r"shard-00001-of-00002\.h5: holds other pseudo labels than manifest\.json said"
    ):
        shards.reader(1)
    shards.shard_paths[1].unlink()
    with pytest.raises(
        ShardError, match=r"shard-00001-of-00002\.h5: has gone; put it back, or run the same `make prop"
    ):
        shards.reader(1)


def test_clusters_do_not_make_a_shard_another(directory: Path) -> None:
    shards = ShardSet.open(directory)
    write_clusters(shards.shard_paths[0], np.zeros(5, np.int32), {"classes": 2})
    with closing(shards.reader(0)) as reader:
        assert reader.clusters == {"classes": 2}


def test_an_image_is_found_by_its_position(directory: Path) -> None:
    assert [ShardSet.open(directory).locate(position) for position in range(6)] == [
        (shard, row) for shard in range(2) for row in range(3)
    ]


def test_empty_shards_have_no_positions() -> None:
    counts = [0, 2, 0, 0, 1]
    shards = ShardSet(Path("a"), REQUEST, tuple({"images": count} for count in counts))
    assert [shards.locate(position) for position in range(3)] == [(1, 0), (1, 1), (4, 0)]


def test_clusters_are_those_of_every_shard_or_refused(directory: Path) -> None:
    shards = ShardSet.open(directory)
    first, second = shards.shard_paths
    with pytest.raises(ShardError, match=r"no clusters; `make cluster SHARDS=.*` makes them"):
        shards.clusters()
    ids = np.zeros(5, np.int32)
    write_clusters(second, ids, {"classes": 2})
    with pytest.raises(ShardError, match=r"clusters unfinished, 1 of 2 shards have them; run the same `make cluster`"):
        shards.clusters()
    write_clusters(first, ids, {"classes": 3})
    with pytest.raises(ShardError, match="clusters unfinished, 1 of 2"):
        shards.clusters()
    write_clusters(first, ids, {"classes": 2})
    assert shards.clusters() == {"classes": 2}


def test_a_directory_without_a_set_is_refused(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "gone"):
        with pytest.raises(ShardError, match="no shard set here"):
            ShardSet.open(path)


def test_an_unfinished_set_is_refused_with_its_progress(directory: Path) -> None:
    write_manifest(directory, REQUEST, None)
    (directory / shard_file_name(1, 2)).unlink()
    with pytest.raises(ShardError, match="unfinished, 1 of 2 shards; run the same `make proposals` again"):
        ShardSet.open(directory)


def test_a_missing_shard_is_named(directory: Path) -> None:
    (directory / shard_file_name(1, 2)).unlink()
    with pytest.raises(ShardError, match=r"1 shards are missing.*shard-00001-of-00002"):
        ShardSet.open(directory)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not JSON"),
        ("[]", "not the manifest of a shard set"),
        ('{"format": "other"}', "not the manifest of a shard set"),
        ('{"format": "saliency-prompt/pseudo-labels"}', "lacks its version, request or shards"),
        (
            json.dumps({"format": "saliency-prompt/pseudo-labels", "version": 2, "request": {}, "shards": []}),
            "version 2 is newer than 1; update",
        ),
        ("\xff", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ("", "not JSON .*; delete it, and the same `make proposals` writes it anew from the shards"),
    ],
)
def test_a_manifest_of_another_kind_is_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "manifest.json").write_text(text, encoding="latin-1")
    with pytest.raises(ShardError, match=message):
        read_manifest(tmp_path)


def test_a_manifest_that_may_not_be_read_is_refused(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").mkdir()
    with pytest.raises(ShardError, match=r"manifest\.json: cannot be read \(Is a directory\)"):
        ShardSet.open(tmp_path)


def test_a_manifest_cut_anywhere_is_refused(directory: Path) -> None:
    path = directory / "manifest.json"
    whole = path.read_bytes().rstrip()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(ShardError, match=r"manifest\.json: not JSON"):
            ShardSet.open(directory)


def test_a_bit_flipped_anywhere_in_a_manifest_gives_a_set_or_a_shard_error(directory: Path) -> None:
    """What it says is checked against the shards by `make inspect`, and against what is asked for by the next run."""
    path = directory / "manifest.json"
    whole, refused = path.read_bytes(), 0
    for position in range(len(whole)):
        for bit in (0, 3, 6):
            data = bytearray(whole)
            data[position] ^= 1 << bit
            path.write_bytes(data)
            try:
                shards = ShardSet.open(directory)
            except ShardError:
                refused += 1
            else:
                assert len(shards.image_counts) == 2
                assert (type(shards.image_root), type(shards.backbone)) == (str, dict)
    assert refused > len(whole)


def test_there_is_no_manifest_where_there_is_none(tmp_path: Path) -> None:
    assert read_manifest(tmp_path) is None
    (tmp_path / "file").touch()
    assert read_manifest(tmp_path / "file") is None
