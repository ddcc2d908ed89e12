from pathlib import Path

import pytest

from stage2_training.config import cpu
from stage2_training.config.compose import (
    CONFIGS,
    default_schedule,
    finetuning_config,
    pretraining_config,
    read_fragment,
)
from stage2_training.config.image_sizes import describe_images
from stage2_training.config.overrides import Overrides


@pytest.fixture
def have(monkeypatch):
    """(gigabytes or None) -> so much memory is free."""

    def have(gigabytes: float | None) -> None:
        monkeypatch.setattr(cpu, "available_memory", lambda: None if gigabytes is None else int(gigabytes * 1e9))

    return have


def test_a_cpu_has_schedules_of_its_own():
    assert default_schedule("pretrain", "cuda") == "pretrain"
    assert default_schedule("finetune", "cuda") == "finetune"
    assert default_schedule("pretrain", "cpu") == "pretrain_cpu"
    assert default_schedule("finetune", "cpu") == "finetune_cpu"
    assert default_schedule("finetune_cityscapes", "cpu") == "finetune_cityscapes_cpu"
    assert default_schedule("finetune_demo", "cpu") == "finetune_demo"


@pytest.mark.parametrize("dataset", sorted(path.stem for path in (CONFIGS / "datasets").glob("*.py")))
def test_what_a_cpu_trains_by_default_fits_four_gigabytes(dataset, have):
    if dataset == "pseudo_labels":
        return
    have(4)
    schedule = default_schedule(read_fragment("datasets", dataset).get("default_schedule", "finetune"), "cpu")
    unlimited = finetuning_config("knet_lite0", dataset, schedule)
    config = finetuning_config("knet_lite0", dataset, schedule, device="cpu")
    assert config.train_dataloader.batch_size == unlimited.train_dataloader.batch_size
    assert config.train_cfg.total_batch == 8


def test_pretraining_on_a_cpu_fits_four_gigabytes(write_shards, have):
    have(4)
    config = pretraining_config("knet_lite0", "pretrain_cpu", write_shards([[]]), device="cpu")
    assert (config.train_dataloader.batch_size, config.train_cfg.total_batch) == (4, 8)
    assert describe_images(config) == "images up to 512 x 512"


# A process takes 1.5 GB, and an image of 1333 x 800 pixels 2.24 GB.
@pytest.mark.parametrize(
    ("gigabytes", "images"), [(1, 1), (5, 1), (6.1, 2), (16, 6), (28.5, 12), (100, 12), (None, 12)]
)
def test_a_process_takes_as_many_images_at_a_time_as_memory_holds(have, gigabytes, images):
    have(gigabytes)
    config = finetuning_config("knet_lite0", "ctw1500", "finetune", device="cpu")
    assert (config.train_dataloader.batch_size, config.train_cfg.total_batch) == (images, 96)
    assert finetuning_config("knet_lite0", "ctw1500", "finetune").train_dataloader.batch_size == 12  # on a GPU


def test_processes_share_the_memory(have, monkeypatch):
    have(16)
    monkeypatch.setattr(cpu, "get_world_size", lambda: 2)
    config = finetuning_config("knet_lite0", "ctw1500", "finetune", device="cpu")
    assert config.train_dataloader.batch_size == 2


def test_a_batch_size_that_is_given_is_kept_and_the_image_size_counts(have):
    have(6.1)
    for overrides in ({"batch_size": 12}, {"cfg_options": ["train_dataloader.batch_size=12"]}):
        config = finetuning_config("knet_lite0", "ctw1500", "finetune", device="cpu", overrides=Overrides(**overrides))
        assert config.train_dataloader.batch_size == 12
    config = finetuning_config("knet_lite0", "ctw1500", "finetune", device="cpu", overrides=Overrides(image_size=400))
    assert config.train_dataloader.batch_size == 12
    config = finetuning_config("knet_lite0", "ctw1500", "finetune", device="cpu", overrides=Overrides(image_size=800))
    assert config.train_dataloader.batch_size == 3


def test_a_schedule_without_total_batch_keeps_its_steps(have, tmp_path: Path):
    have(6.1)
    schedule = tmp_path / "mine.py"
    schedule.write_text(
        f"_base_ = {str(CONFIGS / 'schedules' / 'finetune.py')!r}\n"
        f"train_cfg = dict(_delete_=True, type='ResumableEpochLoop')\n"
    )
    config = finetuning_config("knet_lite0", "ctw1500", str(schedule), device="cpu")
    assert (config.train_dataloader.batch_size, config.train_cfg.total_batch) == (2, 12)


def test_the_largest_size_of_images_is_described():
    config = finetuning_config("knet_lite0", "cityscapes", "finetune_cityscapes")
    assert describe_images(config) == "images up to 2048 x 1024"
    config.train_dataloader.dataset.pipeline = [{"type": "LoadRGBImage"}]
    assert describe_images(config) == "images of any size"
