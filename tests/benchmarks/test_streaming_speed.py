"""The shards and labels of the streaming benchmark are like real ones, and the reference reads the same."""

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from stage1_proposals.shards import ShardSet, verify_shard
from tests.pipelines.command import run_command
from tests.reference.plain_streaming import plain_read
from tests.reference.synthetic_shards import PROPOSALS, make_coco, make_manifest, make_record, make_shards


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_shards(tmp_path_factory.mktemp("bench") / "shards", 3, 8)


def test_synthetic_shards_are_sound_and_their_masks_as_complex_as_real_ones(shards: Path) -> None:
    found = ShardSet.open(shards)
    assert [verify_shard(path) for path in found.shard_paths] == list(found.entries)
    records = list(found.records())
    assert [len(record) for record in records] == [PROPOSALS] * 3
    assert 300 < np.mean([len(rle) for record in records for rle in record.rle]) < 900  # real ones have 620 bytes


def test_the_reference_reads_the_same(shards: Path) -> None:
    found = ShardSet.open(shards)
    for index, record in enumerate(found.records()):
        plain = plain_read(found.shard_paths[0], index)
        assert plain["img_id"] == record.image_id
        assert plain["file_name"] == record.file_name
        assert np.array_equal(plain["masks"], record.masks())
        for name in ("bbox", "score", "area", "seed", "feature"):
            assert np.array_equal(plain[name], getattr(record, name))


def test_the_manifest_and_the_labels_to_start_on_are_as_large_as_asked(tmp_path: Path) -> None:
    assert ShardSet.open(make_manifest(tmp_path / "manifest", 2500)).image_counts == [1000, 1000, 500]
    labels = json.loads(make_coco(tmp_path / "coco.json", 3, 2).read_text())
    assert len(labels["images"]) == 3
    assert len(labels["annotations"]) == 6
    record = make_record(np.random.default_rng(0), 0, 1, 2)
    first = labels["annotations"][0]["segmentation"]
    assert np.array_equal(coco_mask.decode(first), record.masks()[0])


def test_the_command_prints_times_and_ratios(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def in_this_process(function: Callable[..., Any], *args: Any) -> Any:
        """As in another one, which would import PyTorch and MMDetection first."""
        function, args = pickle.loads(pickle.dumps((function, args)))
        return function(*args)

    monkeypatch.setattr("tests.benchmarks.streaming_speed.in_process", in_this_process)
    options = ["--count", 5, "--start-count", 40, "--masks", 2, "--repeat", 1]
    assert run_command("bench", "streaming", *options) == 0
    printed = capsys.readouterr().out
    for line in (
        "h5py and pycocotools / ours",
        "ours, manifest of 40 images",
        "CocoDataset, 2 images",
        "CocoDataset / ",
    ):
        assert line in printed
