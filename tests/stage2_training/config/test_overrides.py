import pytest
from pydantic import ValidationError

from stage1_proposals.common.errors import UserError
from stage2_training.config import overrides as override
from stage2_training.config.compose import CONFIGS, finetuning_config, pretraining_config
from stage2_training.config.overrides import Overrides


@pytest.fixture
def shards(write_shards, make_record, rectangles):
    record = make_record(1, "1.png", rectangles([(0, 0, 8, 8)], 16, 16), [[1, 2, 3, 4]])
    return write_shards([[record]], {"feature_dim": 4}, images=False)


def test_every_override_is_applied():
    options = ["optim_wrapper.optimizer.lr=3e-4", "model.rpn_head.num_kernels=7", "test_cfg.custom=[1,(2,3)]"]
    config = finetuning_config(
        "knet",
        "ctw1500",
        "finetune",
        overrides=Overrides(
            epochs=20, total_batch=6, batch_size=3, workers=0, seed=5, auto_scale_lr=True, cfg_options=options
        ),
    )
    assert config.train_cfg.max_epochs == 20
    assert config.train_cfg.total_batch == 6
    assert config.train_dataloader.batch_size == 3
    for part in ("train", "val", "test"):
        assert config[f"{part}_dataloader"].num_workers == 0
        assert config[f"{part}_dataloader"].persistent_workers is False
    assert config.randomness.seed == 5
    assert config.auto_scale_lr.enable is True
    assert config.optim_wrapper.optimizer.lr == 3e-4
    assert config.model.rpn_head.num_kernels == 7
    assert config.test_cfg.custom == [1, (2, 3)]


def test_overrides_are_frozen_and_refuse_what_they_do_not_know():
    with pytest.raises(ValidationError, match="frozen"):
        Overrides().epochs = 3
    with pytest.raises(ValidationError, match="epoch"):
        Overrides(epoch=3)


def test_epochs_override_those_of_a_detectors_initial_weights():
    config = finetuning_config("queryinst", "ctw1500", init="sp", overrides=Overrides(epochs=3))
    assert config.train_cfg.max_epochs == 3


def test_the_test_set_follows_the_validation_set():
    options = ["val_dataloader.dataset.pipeline.1.scale=(64,64)", "test_dataloader.batch_size=2"]
    config = finetuning_config(
        "knet", "demo", overrides=Overrides(data_root="elsewhere", cfg_options=options)
    ).to_dict()
    assert config["test_dataloader"]["dataset"] == config["val_dataloader"]["dataset"]
    assert config["test_dataloader"]["dataset"]["pipeline"][1]["scale"] == (64, 64)
    assert config["test_dataloader"]["batch_size"] == 2
    assert config["val_dataloader"]["batch_size"] == 1
    assert config["train_dataloader"]["dataset"]["data_root"] == "elsewhere"
    for part in ("val", "test"):
        assert config[f"{part}_evaluator"]["ann_file"] == "elsewhere/annotations/test.json"


def test_image_size_resizes_the_images_of_every_part(shards):
    for config, parts in (
        (pretraining_config("knet", "pretrain", shards, overrides=Overrides(image_size=192)), ["train"]),
        (finetuning_config("knet", "ctw1500", overrides=Overrides(image_size=192)), ["train", "val", "test"]),
    ):
        for part in parts:
            pipeline = config[f"{part}_dataloader"].dataset.pipeline
            (resize,) = [transform for transform in pipeline if transform.type == "Resize"]
            assert resize == {"type": "Resize", "scale": (192, 192), "keep_ratio": True}


def test_image_size_needs_a_fixed_size():
    with pytest.raises(
        UserError, match=r"^--image-size 192: the pipeline of CityscapesDataset has no Resize transform"
    ):
        finetuning_config("knet", "cityscapes", overrides=Overrides(image_size=192))


def test_options_with_an_unknown_first_name_are_refused(shards):
    for key, near in (("optim_wraper.optimizer.lr", "; optim_wrapper[?]"), ("sync_bm", "; sync_bn[?]"), ("zzz", "")):
        with pytest.raises(UserError, match=f"^--cfg-options {key}: no such setting{near}$"):
            pretraining_config("knet", "pretrain", shards, overrides=Overrides(cfg_options=[f"{key}=3"]))
    chosen = Overrides(cfg_options=["sync_bn=torch", "find_unused_parameters=True"])
    assert pretraining_config("knet", "pretrain", shards, overrides=chosen).sync_bn == "torch"


def test_malformed_options_are_user_errors():
    for option in ("train_dataloader.dataset.pipeline.99.x=1", "train_dataloader.batch_size.x=1", "custom=[1,(2"):
        with pytest.raises(UserError, match="does not fit the config"):
            finetuning_config("knet", "demo", overrides=Overrides(cfg_options=[option]))
    with pytest.raises(UserError, match="'lr': write it as key=value"):
        finetuning_config("knet", "demo", overrides=Overrides(cfg_options=["lr"]))


def test_options_override_the_schedule_that_follows_the_run(shards):
    longer = Overrides(cfg_options=["train_cfg.total_batch=30", "train_cfg.max_epochs=20"])
    assert pretraining_config("knet", "pretrain", shards, overrides=longer).param_scheduler[0].steps == 1000
    explicit = Overrides(epochs=1, cfg_options=["param_scheduler.0.end=700", "train_cfg.total_batch=30"])
    warm_up = pretraining_config("knet", "pretrain", shards, overrides=explicit).param_scheduler[0]
    assert warm_up == {"type": "LinearLR", "end": 700, "start_factor": 0.001, "by_epoch": False}


@pytest.mark.parametrize("wrapper", ["OptimWrapper", "AmpOptimWrapper", None])
def test_mixed_precision_needs_this_projects_optimizer_wrapper(tmp_path, wrapper):
    schedule = tmp_path / "mine.py"
    settings = "optimizer=dict(type='SGD', lr=0.1)" + (f", type={wrapper!r}" if wrapper else "")
    schedule.write_text(
        f"_base_ = {str(CONFIGS / 'schedules' / 'finetune.py')!r}\noptim_wrapper = dict(_delete_=True, {settings})\n"
    )
    config = finetuning_config("knet", "ctw1500", str(schedule))
    assert config.optim_wrapper.get("type") == wrapper
    message = f"^--amp: the schedule's optim_wrapper is {wrapper or 'OptimWrapper'}; use AccumulatingOptimWrapper"
    with pytest.raises(UserError, match=message):
        finetuning_config("knet", "ctw1500", str(schedule), overrides=Overrides(amp=True))


@pytest.mark.parametrize("loader", ["None", "dict(_delete_=True, num_workers=1)"])
def test_only_options_that_were_given_are_blamed(tmp_path, loader):
    schedule = tmp_path / "mine.py"
    schedule.write_text(f"_base_ = {str(CONFIGS / 'schedules' / 'finetune.py')!r}\ntrain_dataloader = {loader}\n")
    with pytest.raises(UserError, match=r"^the config's parts do not fit together \("):
        finetuning_config("knet", "ctw1500", str(schedule))


def test_mixed_precision_and_averages(shards):
    config = pretraining_config("knet", "pretrain", shards)
    assert config.optim_wrapper.type == "AccumulatingOptimWrapper"
    assert "amp" not in config.optim_wrapper
    assert [hook.type for hook in config.custom_hooks] == ["PlainCheckpointHook"]
    config = pretraining_config("knet", "pretrain", shards, overrides=Overrides(amp=True, ema=True))
    assert config.optim_wrapper.amp is True
    assert [hook.type for hook in config.custom_hooks] == ["PlainCheckpointHook", "EMAHook"]


@pytest.mark.parametrize("key", ["train_dataloader.batch_size", "train_cfg.max_epochs", "train_cfg.total_batch"])
@pytest.mark.parametrize("value", ["zz", "0", "-1", "1.5", "True", "[1,2]"])
def test_lengths_and_batches_are_positive_integers(shards, key, value):
    overrides = Overrides(cfg_options=[f"{key}={value}"])
    for make in (
        lambda: pretraining_config("knet", "pretrain", shards, overrides=overrides),
        lambda: finetuning_config("knet", "demo", overrides=overrides),
    ):
        with pytest.raises(UserError, match=f"^{key} .*: use an integer from 1 up$"):
            make()


@pytest.mark.parametrize(("processes", "images"), [(1, 12), (8, 12), (16, 6), (32, 3)])
def test_the_total_batch_is_shared_among_the_processes(shards, monkeypatch, processes, images):
    monkeypatch.setattr(override, "get_world_size", lambda: processes)
    config = pretraining_config("knet", "pretrain", shards)
    assert config.train_cfg.total_batch == 96
    assert config.train_dataloader.batch_size == images
    with pytest.raises(UserError, match=r"--batch-size 7 does not divide the \d+ images"):
        pretraining_config("knet", "pretrain", shards, overrides=Overrides(batch_size=7))
    fixed = Overrides(cfg_options=["train_dataloader.batch_size=7"], total_batch=14 * processes)
    assert pretraining_config("knet", "pretrain", shards, overrides=fixed).train_dataloader.batch_size == 7


def test_the_demo_takes_its_batch_at_once(shards):
    for config in (
        pretraining_config("knet_lite0", "pretrain_demo", shards),
        finetuning_config("knet", "demo", "finetune_demo"),
    ):
        assert config.train_dataloader.batch_size == config.train_cfg.total_batch == 8
