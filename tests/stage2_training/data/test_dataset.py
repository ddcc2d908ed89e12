import os
import pickle
import tracemalloc

import h5py
import numpy as np
import pytest
import torch
from mmengine.registry import init_default_scope
from PIL import Image
from torch.utils.data import DataLoader

from stage1_proposals.common.errors import UserError
from stage1_proposals.shards import (
    ClusterRecord,
    Manifest,
    ShardEntry,
    ShardReader,
    ShardSet,
    shard_file_name,
    write_clusters,
)
from stage1_proposals.shards import reader as reader_module
from stage2_training.data import PseudoLabelDataset, ShardSampler
from tests.shard_sets import make_request

PIPELINE = [
    {"type": "LoadRGBImage"},
    {"type": "LoadPseudoLabels"},
    {"type": "Resize", "scale": (32, 32), "keep_ratio": True},
    {"type": "PackPseudoLabels"},
]


@pytest.fixture(autouse=True)
def mmdet_scope():
    init_default_scope("mmdet")


@pytest.fixture
def shards(write_shards, make_record, rectangles) -> ShardSet:
    """Three shards of 3, 0 and 2 images; image i has i % 3 masks, whose features hold (image, mask)."""
    records = []
    for image in range(5):
        masks = rectangles([(2 * m, image, 2 * m + 9, image + 8) for m in range(image % 3)], 24, 32)
        features = np.array([[image, m, 0, 1] for m in range(image % 3)]).reshape(-1, 4)
        records.append(make_record(100 + image, f"a/{image}.png", masks, features))
    return write_shards([records[:3], [], records[3:]])


def test_a_part_of_the_images_is_refused(shards):
    """MMEngine's setting, which would go unread."""
    with pytest.raises(UserError, match=r"^dataset\.indices: shards are taken whole"):
        PseudoLabelDataset(str(shards.directory), indices=2)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"choose": "worst"}, r"^dataset\.choose 'worst': use best or random$"),
        ({"max_proposals": 0}, r"^dataset\.max_proposals 0: use 1 or more"),
    ],
)
def test_an_unknown_choice_of_proposals_is_refused(shards, option, message: str):
    with pytest.raises(UserError, match=message):
        PseudoLabelDataset(str(shards.directory), **option)


def test_takes_the_best_or_other_random_proposals(write_shards, make_record, rectangles):
    """With their features and masks; of fewer proposals, all."""
    masks = rectangles([(2 * m, 0, 2 * m + 9, 8) for m in range(6)], 24, 32)
    features = np.array([[m, 0, 0, 1] for m in range(6)])
    record = make_record(1, "many.png", masks, features)
    record.score[:] = [0.1, 0.6, 0.2, 0.9, 0.6, 0.3]
    few = make_record(2, "few.png", masks[:2], features[:2])
    directory = str(write_shards([[record, few]]).directory)
    best = PseudoLabelDataset(directory, max_proposals=3)[0]
    assert best["record"].feature[:, 0].tolist() == [3, 1, 4]
    assert best["record"].bbox[:, 1].tolist() == [6, 2, 8]
    assert np.array_equal(best["record"].masks(), masks[[3, 1, 4]])
    assert best["labels"].tolist() == [0, 0, 0]
    np.random.seed(0)
    random = PseudoLabelDataset(directory, max_proposals=3, choose="random")
    seen = [set(random[0]["record"].feature[:, 0].tolist()) for _ in range(20)]
    assert all(len(rows) == 3 for rows in seen)
    assert set.union(*seen) == set(range(6))
    assert len(random[1]["record"]) == 2


def test_reads_every_image_once_in_the_order_of_the_shards(shards):
    dataset = PseudoLabelDataset(str(shards.directory))
    assert len(dataset) == 5
    found = [dataset.get_data_info(index) for index in range(5)]
    assert [info["img_id"] for info in found] == [100, 101, 102, 103, 104]
    assert [len(info["record"]) for info in found] == [0, 1, 2, 0, 1]
    assert dataset.get_data_info(-1)["img_id"] == 104
    with pytest.raises(IndexError):
        dataset.get_data_info(5)
    assert dataset.metainfo["classes"] == ("object",)
    assert [info["labels"].tolist() for info in found] == [[], [0], [0, 0], [], [0]]


def add_clusters(shards: ShardSet, only: int | None = None, **changes: object) -> None:
    """Classes 4, 3, 2, ... of 5 in each shard (or one alone)."""
    for number, (entry, path) in enumerate(zip(shards.entries, shards.shard_paths, strict=True)):
        if only in (None, number):
            clusters = ClusterRecord.from_json({"classes": 5, **changes}, "clusters")
            write_clusters(path, 4 - np.arange(entry.proposals, dtype=np.int32), clusters)


def test_clusters_are_the_classes_when_asked(shards):
    add_clusters(shards)
    agnostic, dataset = (PseudoLabelDataset(str(shards.directory), PIPELINE, pseudo_classes=on) for on in (False, True))
    labels = [dataset[index]["data_samples"].gt_instances.labels for index in range(5)]
    assert [each.tolist() for each in labels] == [[], [4], [3, 2], [], [4]]
    assert {each.dtype for each in labels} == {torch.int64}
    assert dataset.metainfo["classes"] == tuple(f"cluster {number}" for number in range(5))
    assert agnostic[2]["data_samples"].gt_instances.labels.tolist() == [0, 0]


def test_clusters_that_are_not_in_every_shard_are_refused(shards):
    with pytest.raises(UserError, match=r"no clusters; `make cluster SHARDS=.*` makes them"):
        PseudoLabelDataset(str(shards.directory), pseudo_classes=True)
    add_clusters(shards, only=2)
    with pytest.raises(UserError, match="clusters unfinished, 1 of 3 shards have them; run the same `make cluster`"):
        PseudoLabelDataset(str(shards.directory), pseudo_classes=True)


def test_clusters_made_anew_since_the_start_are_refused(shards):
    add_clusters(shards)
    dataset = PseudoLabelDataset(str(shards.directory), pseudo_classes=True)
    add_clusters(shards, only=2, seed=1)
    dataset.get_data_info(2)
    with pytest.raises(UserError, match=r"shard-00002-of-00003\.h5: not clustered as when training began"):
        dataset.get_data_info(4)


def test_images_without_proposals_are_samples_too(shards):
    sample = PseudoLabelDataset(str(shards.directory), PIPELINE)[0]
    instances = sample["data_samples"].gt_instances
    assert sample["inputs"].shape == (3, 24, 32)
    assert len(instances) == 0
    assert instances.seed_features.shape == (0, 4)
    assert instances.masks.masks.shape == (0, 24, 32)


def test_nothing_is_opened_before_the_first_read_nor_pickled_after_it(shards):
    dataset = PseudoLabelDataset(str(shards.directory))
    assert not dataset._readers
    dataset.get_data_info(0)
    assert dataset._readers
    copy = pickle.loads(pickle.dumps(dataset))
    assert not copy._readers
    assert copy.get_data_info(4)["img_id"] == 104


def test_workers_see_the_same_samples(shards):
    dataset = PseudoLabelDataset(str(shards.directory), PIPELINE)
    expected = [dataset[index]["data_samples"].gt_instances.seed_features for index in range(5)]  # opens shards here
    loader = DataLoader(dataset, num_workers=2, collate_fn=list)
    found = [batch[0]["data_samples"].gt_instances.seed_features for batch in loader]
    for a, b in zip(expected, found, strict=True):
        assert torch.equal(a, b)


def test_a_forked_process_opens_its_own_files(shards):
    dataset = PseudoLabelDataset(str(shards.directory))
    dataset.get_data_info(0)
    reader = dataset._readers[0]
    pid = os.fork()
    if pid == 0:
        same = dataset._reader(0) is reader
        os._exit(1 if same else 0)
    assert os.waitpid(pid, 0)[1] == 0


def test_at_most_so_many_shards_are_open(shards):
    dataset = PseudoLabelDataset(str(shards.directory), max_open_shards=1)
    for index in (0, 4, 1, 3):
        assert dataset.get_data_info(index)["img_id"] == 100 + index
        assert len(dataset._readers) == 1


def test_a_pass_with_the_shard_sampler_opens_each_shard_once(write_shards, make_record, rectangles, monkeypatch):
    masks = rectangles([(0, 0, 4, 4)], 24, 32)
    records = [make_record(number, f"{number}.png", masks, np.zeros((1, 4))) for number in range(24)]
    shards = write_shards([records[first : first + 3] for first in range(0, 24, 3)], images=False)
    dataset = PseudoLabelDataset(str(shards.directory), max_open_shards=2)
    opened, read_ahead = [], []
    monkeypatch.setattr(ShardReader, "read_ahead", lambda reader: read_ahead.append(reader.path))
    monkeypatch.setattr(reader_module, "open_shard", lambda path: opened.append(path) or h5py.File(path))
    found = [dataset.get_data_info(index)["img_id"] for index in ShardSampler(dataset, seed=0)]
    assert sorted(found) == list(range(24))
    assert sorted(opened) == sorted(read_ahead) == shards.shard_paths


@pytest.mark.parametrize("workers", [0, 2])
def test_a_run_resumed_in_mid_epoch_sees_what_is_left_of_it(shards, workers):
    dataset = PseudoLabelDataset(str(shards.directory), PIPELINE)

    def ids(first: int) -> list[int]:
        sampler = ShardSampler(dataset, seed=0)
        sampler.start_at(first)
        loader = DataLoader(dataset, num_workers=workers, collate_fn=list, sampler=sampler)
        return [batch[0]["data_samples"].img_id for batch in loader]

    whole = ids(0)
    assert sorted(whole) == [100, 101, 102, 103, 104]
    assert ids(2) == whole[2:]


def test_opening_takes_no_memory_per_image(tmp_path):
    """A dataset of ten million images in 10 shards takes no more than one of a thousand; an epoch's order does."""

    def peak(images: int) -> int:
        directory = tmp_path / str(images)
        directory.mkdir(exist_ok=True)
        entries = [ShardEntry(shard_file_name(index, 10), images // 10, 0, 0, "") for index in range(10)]
        for entry in entries:
            (directory / entry.file).touch()
        Manifest(make_request(shard_count=10), tuple(entries)).write(directory)
        tracemalloc.start()
        dataset = PseudoLabelDataset(str(directory))
        used = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert len(dataset) == images
        return used

    peak(10)  # what the first dataset of a process imports and caches
    # Other threads of the test process allocate, too, now and then.
    large, small = (min(peak(images) for _ in range(5)) for images in (10_000_000, 1000))
    assert large < small + 10_000


def test_missing_shards_are_found_at_start(shards):
    shards.shard_paths[2].unlink()
    with pytest.raises(UserError, match="shard-00002-of-00003"):
        PseudoLabelDataset(str(shards.directory))
    with pytest.raises(UserError, match="no shard set"):
        PseudoLabelDataset(str(shards.directory / "elsewhere"))


def test_moved_images_are_named_and_found_again_under_another_root(shards, tmp_path):
    (tmp_path / "images").rename(tmp_path / "moved")
    with pytest.raises(UserError, match=r"images/a/1\.png.*does not exist.*image_root"):
        PseudoLabelDataset(str(shards.directory), PIPELINE)[1]
    dataset = PseudoLabelDataset(str(shards.directory), PIPELINE, image_root=str(tmp_path / "moved"))
    assert len(dataset[1]["data_samples"].gt_instances) == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda path: Image.new("RGB", (40, 24)).save(path),
            r"1\.png: is 40 x 24 pixels, but its labels are for 32 x 24; restore the image or make its labels again",
        ),
        (lambda path: path.unlink(), r"1\.png: does not exist; put the image back"),
        (lambda path: path.write_bytes(path.read_bytes()[:-50]), r"1\.png: cannot be decoded: .*; put the image back"),
    ],
    ids=["another size", "deleted", "damaged"],
)
def test_an_image_changed_since_stage_1_is_refused_by_name(shards, change, message):
    dataset = PseudoLabelDataset(str(shards.directory), PIPELINE)
    assert dataset[1]["data_samples"].ori_shape == (24, 32)
    change(dataset.image_root / "a" / "1.png")
    with pytest.raises(UserError, match=message):
        dataset[1]
