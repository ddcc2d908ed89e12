"""Length, evaluations and augmentation of fine-tuning by the number of images."""

import pytest
from mmengine.config import Config

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
