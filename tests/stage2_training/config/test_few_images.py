"""Length, evaluations and augmentation of fine-tuning by the number of images."""

import json
from itertools import pairwise
from pathlib import Path

import pytest
from mmdet.registry import DATASETS
from mmengine.config import Config

from stage1_proposals.common.errors import UserError
from stage2_training.config.compose import finetuning_config, read_fragment
from stage2_training.config.datasets import open_dataset
from stage2_training.config.few_images import describe_length, fit_to_images
from stage2_training.config.overrides import Overrides
from tests import miniatures


@pytest.mark.parametrize(
    ("schedule", "images", "epochs", "interval"),
    [
        ("finetune_cpu", 20, 134, 14),  # 3 steps an epoch
        ("finetune_cpu", 64, 50, 5),
        ("finetune_cpu", 5000, 48, 5),
        ("finetune", 20, 400, 8),  # one step an epoch: the paper's total batch
        ("finetune", 5000, 48, 1),
    ],
)
def test_few_images_train_for_enough_steps_and_are_evaluated_as_often(schedule, images, epochs, interval):
    config = Config(read_fragment("schedules", schedule))
    fit_to_images(config, images)
    assert (config.train_cfg.max_epochs, config.train_cfg.val_interval) == (epochs, interval)


def test_a_length_that_is_given_is_kept_and_evaluated_as_often():
    config = Config(read_fragment("schedules", "finetune_cpu"))
    fit_to_images(config, 20, epochs=10)
    assert (config.train_cfg.max_epochs, config.train_cfg.val_interval) == (10, 1)


def test_few_images_are_also_shrunk_and_recoloured():
    few, many = (Config(read_fragment("schedules", "finetune_cpu")) for _ in range(2))
    fit_to_images(few, 100)
    fit_to_images(many, 101)
    names = [transform.type for transform in many.train_dataloader.dataset.pipeline]
    assert names[2:] == ["Resize", "RandomFlip", "Rotate", "BoxesFromMasks", "PackDetInputs"]
    pipeline = few.train_dataloader.dataset.pipeline
    names = [transform.type for transform in pipeline]
    assert names[2:5] == ["RandomResize", "RandomFlip", "Rotate"]
    assert names[5:] == ["PhotoMetricDistortion", "BoxesFromMasks", "PackDetInputs"]
    assert (pipeline[2].scale, pipeline[2].ratio_range) == ((512, 512), (0.6, 1.0))


def test_labels_of_ones_own_get_them_and_every_one_can_be_set(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    labelled = open_dataset(str(miniatures.labelme(tmp_path / "mine"))).fragment
    config = finetuning_config("knet_lite0", labelled, "finetune_cpu", overrides=Overrides(image_size=64))
    assert (config.train_cfg.max_epochs, config.train_cfg.val_interval) == (400, 42)
    assert config.train_dataloader.dataset.pipeline[2].type == "RandomResize"
    assert config.train_dataloader.dataset.pipeline[2].scale[0] == 64 or config.objects.side
    assert describe_length(config) == (
        "4 training images: 400 epochs of 1 steps, 20 of them for warm-up; evaluated every 42 epochs; augmented by "
        "size, flip, rotation, colour; --epochs, --patience and --cfg-options (train_cfg.val_interval, "
        "train_dataloader.dataset.pipeline) set others"
    )
    given = Overrides(epochs=3, cfg_options=["train_cfg.val_interval=2"])
    config = finetuning_config("knet_lite0", labelled, "finetune_cpu", overrides=given)
    assert (config.train_cfg.max_epochs, config.train_cfg.val_interval) == (3, 2)


def test_a_dataset_with_a_length_of_its_own_keeps_it():
    config = finetuning_config("knet_lite0", "demo", "finetune_demo")
    assert (config.train_cfg.max_epochs, config.train_cfg.val_interval) == (20, 5)
    assert [transform.type for transform in config.train_dataloader.dataset.pipeline][2] == "Resize"


@pytest.fixture
def twelve(tmp_path):
    """A dataset's config of twelve training images, all but every fourth of which have objects."""
    root = miniatures.coco(tmp_path)

    def loader(split):
        dataset = {"type": "CocoDataset", "data_root": str(root), "ann_file": f"annotations/instances_{split}.json"}
        more = {"data_prefix": {"img": f"{split}/"}, "metainfo": {"classes": miniatures.COCO_CLASSES}}
        return {"dataset": {**dataset, **more, "filter_cfg": {"filter_empty_gt": True}}}

    return {
        "train_cfg": {"max_epochs": 20},
        "train_dataloader": loader("train2017"),
        "val_dataloader": loader("val2017"),
        "val_evaluator": {"type": "MaskAP"},
    }


def drawn(dataset, **overrides):
    """The names of the images that a config trains on, as MMDetection's dataset has them; and the config."""
    config = finetuning_config("knet_lite0", dataset, "finetune_demo", overrides=Overrides(**overrides))
    built = DATASETS.build({**config.train_dataloader.dataset, "pipeline": []})
    return [Path(built.get_data_info(index)["img_path"]).name for index in range(len(built))], config


def test_fewer_images_are_among_more_and_a_seed_draws_them(twelve):
    every, whole = drawn(twelve)
    assert len(every) == 9
    parts = [drawn(twelve, train_images=count)[0] for count in (1, 3, 6, 9)]
    assert [len(part) for part in parts] == [1, 3, 6, 9]
    assert all(set(few) < set(more) for few, more in pairwise(parts))
    assert parts[-1] == every
    assert drawn(twelve, train_images=3)[0] == parts[1]
    others = [drawn(twelve, train_images=3, seed=seed)[0] for seed in range(1, 5)]
    assert len(set(map(tuple, [parts[1], *others]))) > 3
    _, part = drawn(twelve, train_images=3, seed=2)
    assert part.test_dataloader == whole.test_dataloader
    assert part.training_images == 3


def test_a_part_has_as_many_steps_and_evaluations_as_all_unless_epochs_are_given(twelve):
    for overrides, expected in (
        ({}, (20, 5)),  # two steps an epoch
        ({"train_images": 9}, (20, 5)),
        ({"train_images": 3}, (40, 10)),
        ({"train_images": 3, "epochs": 7}, (7, 5)),
    ):
        _, config = drawn(twelve, **overrides)
        assert (config.train_cfg.max_epochs, config.train_cfg.val_interval) == expected, overrides


def test_queries_and_length_follow_from_the_images_that_are_drawn(twelve):
    labels = Path(twelve["train_dataloader"]["dataset"]["data_root"]) / "annotations/instances_train2017.json"
    content = json.loads(labels.read_text())
    content["annotations"] += [{**content["annotations"][0], "id": 5000 + number} for number in range(90)]
    labels.write_text(json.dumps(content))
    name = content["images"][content["annotations"][0]["image_id"] - 1]["file_name"]
    found = [drawn(twelve, train_images=2, seed=seed, tiles="off") for seed in range(9)]
    assert {config.objects.per_image > 90 for names, config in found if name in names} == {True}
    assert {config.objects.per_image for names, config in found if name not in names} == {2}


def test_labels_of_ones_own_are_as_long_as_so_many_images_make_them(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    labelled = open_dataset(str(miniatures.labelme(tmp_path / "mine", 12))).fragment
    _, config = drawn(labelled, train_images=2, queries=50, image_size=64)  # sizes that are given change nothing of it
    assert (config.training_images, config.train_cfg.max_epochs, config.train_cfg.val_interval) == (2, 400, 42)


def test_more_images_than_there_are_is_one_line(twelve):
    with pytest.raises(UserError, match=r"^--train-images 10: \S+train2017.json has 9 images with objects$"):
        drawn(twelve, train_images=10)


def test_labels_that_cannot_be_read_are_said_to_be(twelve):
    labels = Path(twelve["train_dataloader"]["dataset"]["data_root"]) / "annotations/instances_train2017.json"
    labels.write_text("[1]")
    with pytest.raises(UserError, match=r"train2017.json: is no COCO JSON of labelled images; correct the file$"):
        drawn(twelve, train_images=1)
    labels.unlink()
    with pytest.raises(UserError, match=r"train2017.json: cannot be read \(No such file or directory\); `make data`"):
        drawn(twelve, train_images=1)
