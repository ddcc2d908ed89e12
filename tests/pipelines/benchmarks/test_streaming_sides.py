"""The streaming benchmark's sides read the same, and its figures are of what they say."""

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from pipelines.benchmarks import streaming_sides
from pipelines.benchmarks.synthetic_shards import PROPOSALS, make_coco, make_manifest, make_record, make_shards
from stage1_proposals.shards import ShardSet, verify_shard
from stage2_training.data import LoadPseudoLabels


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_shards(tmp_path_factory.mktemp("bench") / "shards", 3, 8)


def test_made_up_shards_are_sound_and_their_masks_as_complex_as_real_ones(shards: Path) -> None:
    found = ShardSet.open(shards)
    assert [verify_shard(path) for path in found.shard_paths] == list(found.entries)
    records = list(found.records())
    assert [len(record) for record in records] == [PROPOSALS] * 3
    assert 300 < np.mean([len(rle) for record in records for rle in record.rle]) < 900  # of real ones, 620 bytes


def test_both_sides_read_the_same(shards: Path) -> None:
    found = ShardSet.open(shards)
    for index, record in enumerate(found.records()):
        plain = streaming_sides.plain_read(found.shard_paths[0], index)
        assert plain["img_id"] == record.image_id
        assert plain["file_name"] == record.file_name
        assert np.array_equal(plain["masks"], record.masks())
        for name in ("bbox", "score", "area", "seed", "feature"):
            assert np.array_equal(plain[name], getattr(record, name))
        labels = {"record": record, "labels": np.zeros(len(record), int)}
        ours, bitmaps = (load(dict(labels)) for load in (LoadPseudoLabels().transform, streaming_sides.PlainLabels()))
        assert ours.keys() == bitmaps.keys()
        assert np.array_equal(ours["gt_masks"].masks, bitmaps["gt_masks"].masks)
        assert np.array_equal(ours["gt_seed_features"], bitmaps["gt_seed_features"])


def test_reading_and_every_step_of_the_pipeline_take_time(shards: Path) -> None:
    times = streaming_sides.measure_reading(shards, 2)
    assert set(times) == {"row", "masks", "sample", "plain"}
    assert all(0 < each.median <= each.slow for each in times.values())
    assert times["sample"].median > times["masks"].median
    steps = {plain: streaming_sides.measure_pipeline(shards, "pretrain_demo", plain, 1) for plain in (True, False)}
    assert list(steps[True]) == list(steps[False])
    assert {"read from the shard", "decode the image", "flip", "K-Net's targets"} < set(steps[True])
    assert min(min(each.values()) for each in steps.values()) > 0


def test_a_start_holds_what_it_makes(tmp_path: Path) -> None:
    cost = streaming_sides._cost(lambda: np.ones(100_000_000))  # 800 MB: what this process had freed counts less
    assert 600_000_000 < cost.held <= cost.peak + 1_000_000
    ours = streaming_sides.start_on_shards(make_manifest(tmp_path / "manifest", 2500))
    assert ours.seconds > 0
    assert ShardSet.open(tmp_path / "manifest").image_counts == [1000, 1000, 500]
    coco = make_coco(tmp_path / "coco.json", 3, 2)
    assert streaming_sides.start_on_coco(coco).seconds > 0
    labels = json.loads(coco.read_text())
    assert len(labels["images"]) == 3
    assert len(labels["annotations"]) == 6
    record = make_record(np.random.default_rng(0), 0, 1, 2)
    first = labels["annotations"][0]["segmentation"]
    assert np.array_equal(coco_mask.decode(first), record.masks()[0])
    assert pickle.loads(pickle.dumps(ours)) == ours
