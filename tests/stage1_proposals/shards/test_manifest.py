"""The manifest: typed records that read, check, write and compare themselves."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from stage1_proposals.shards import BackboneRecord, Manifest, Request, ShardEntry, ShardError, ShardSet, shard_file_name
from tests.shard_sets import make_request

REQUEST = make_request()
ENTRIES = tuple(ShardEntry(shard_file_name(index, 2), 3, 5, 1, f"{index:064x}") for index in range(2))


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A finished set of two shards, which are empty files."""
    Manifest(REQUEST, ENTRIES).write(tmp_path)
    for entry in ENTRIES:
        (tmp_path / entry.file).touch()
    return tmp_path


def test_it_is_written_as_documented_and_read_as_written(directory: Path) -> None:
    document = json.loads((directory / "manifest.json").read_text())
    assert document == {
        "format": "saliency-prompt/pseudo-labels",
        "version": 1,
        "request": {
            "image_root": "/images",
            "image_count": 6,
            "image_list_sha256": "cd",
            "images_per_shard": 3,
            "shard_count": 2,
            "generator": {"name": "saliency", "threshold": 0.5, "short_side": 64, "long_side": 128},
            "backbone": {
                "name": "lite0_imagenet",
                "weights": None,
                "sha256": "ab",
                "stride": 32,
                "feature_dim": 3,
                "precision": "float32",
            },
        },
        "shards": [
            {"file": f"shard-0000{n}-of-00002.h5", "images": 3, "proposals": 5, "failures": 1}
            | {"content_sha256": f"{n:064x}"}
            for n in range(2)
        ],
    }
    assert Manifest.read(directory) == Manifest(REQUEST, ENTRIES)
    Manifest(REQUEST, None).write(directory)
    assert Manifest.read(directory) == Manifest(REQUEST, None)
    assert json.loads((directory / "manifest.json").read_text()) == document | {"shards": None}


def test_keys_of_newer_versions_are_kept_and_compared(directory: Path) -> None:
    document = json.loads((directory / "manifest.json").read_text())
    document["request"]["new"] = [1]
    document["request"]["backbone"]["new"] = 2
    (directory / "manifest.json").write_text(json.dumps(document))
    manifest = Manifest.read(directory)
    assert manifest is not None
    assert manifest.request.to_json() == document["request"]
    assert manifest.request.differences(REQUEST) == {"backbone.new": (2, None), "new": ([1], None)}


@pytest.mark.parametrize(
    ("other", "differences"),
    [
        (REQUEST, {}),
        (replace(REQUEST, image_count=7), {"image_count": (6, 7)}),
        (
            replace(REQUEST, generator={"name": "saliency", "threshold": 0.5, "short_side": 64, "long_side": 96}),
            {"generator.long_side": (128, 96)},
        ),
        (make_request(backbone={"weights": "/elsewhere.pth"}), {}),
        (make_request(backbone={"sha256": "other"}), {"backbone.sha256": ("ab", "other")}),
        (
            replace(REQUEST, generator={"name": "mine"}),
            {
                "generator.name": ("saliency", "mine"),
                "generator.threshold": (0.5, None),
                "generator.short_side": (64, None),
                "generator.long_side": (128, None),
            },
        ),
    ],
)
def test_requests_name_their_differences(other: Request, differences: dict[str, Any]) -> None:
    assert REQUEST.differences(other) == differences


@pytest.mark.parametrize("setting", ["file", "checkpoint"])
@pytest.mark.parametrize(("hashed", "count"), [(True, 0), (False, 1)])
def test_a_file_counts_by_its_content_where_that_is_known(setting: str, hashed: bool, count: int) -> None:
    content = {"sha256": "ef"} if hashed else {}
    one, other = (
        replace(REQUEST, generator={"name": "import", setting: file, **content}) for file in ("a.json", "b.json")
    )
    assert len(one.differences(other)) == count


def test_settings_are_compared_as_json_gives_them_back() -> None:
    one, other = (replace(REQUEST, generator={"seed_scales": scales}) for scales in ((1, 0.5), [1.0, 0.5]))
    assert one.differences(other) == {}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda request: request.pop("image_count"), "`request.image_count` is missing"),
        (lambda request: request.update(shard_count="two"), "`request.shard_count` has the wrong type, str"),
        (lambda request: request.update(backbone=None), "`request.backbone` must be a JSON object"),
        (lambda request: request["backbone"].pop("stride"), "`request.backbone.stride` is missing"),
        (lambda request: request.update(generator=[]), "`request.generator` has the wrong type, list"),
    ],
)
def test_a_record_that_lacks_something_is_refused(
    directory: Path, change: Callable[[dict[str, Any]], object], message: str
) -> None:
    document = json.loads((directory / "manifest.json").read_text())
    change(document["request"])
    (directory / "manifest.json").write_text(json.dumps(document))
    with pytest.raises(ShardError, match=rf"manifest\.json: damaged, {message}; delete it, and the same"):
        ShardSet.open(directory)


def test_a_backbone_recorded_before_there_were_precisions_was_float32(directory: Path) -> None:
    document = json.loads((directory / "manifest.json").read_text())
    del document["request"]["backbone"]["precision"]
    (directory / "manifest.json").write_text(json.dumps(document))
    assert ShardSet.open(directory).request.differences(REQUEST) == {}


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
        ("", "not JSON .*; delete it, and the same `make proposals` rewrites it from the shards"),
    ],
)
def test_a_manifest_of_another_kind_is_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "manifest.json").write_text(text, encoding="latin-1")
    with pytest.raises(ShardError, match=message):
        Manifest.read(tmp_path)


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
                assert (type(shards.image_root), type(shards.backbone)) == (str, BackboneRecord)
    assert refused > len(whole)


def test_there_is_no_manifest_where_there_is_none(tmp_path: Path) -> None:
    assert Manifest.read(tmp_path) is None
    (tmp_path / "file").touch()
    assert Manifest.read(tmp_path / "file") is None
