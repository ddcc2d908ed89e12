from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.optim import LinearLR

from stage1_proposals.common.errors import UserError
from stage1_proposals.shards import write_clusters
from stage2_training.config import overrides as override
from stage2_training.config.compose import (
    CONFIGS,
    finetuning_config,
    parse_saliency_prompt,
    pretraining_config,
    set_num_classes,
)
from stage2_training.config.overrides import Overrides
from stage2_training.runs.work_dir import flatten
from stage2_training.saliency_prompt.settings import SaliencyPromptSettings


@pytest.fixture
def shards(write_shards, make_record, rectangles):
    record = make_record(1, "1.png", rectangles([(0, 0, 8, 8)], 16, 16), [[1, 2, 3, 4]])
    return write_shards([[record]], {"feature_dim": 4}, images=False)


def test_pretraining_is_class_agnostic_with_prompts_and_a_frozen_backbone(shards):
    settings = {"matching": "random", "level": 0}
    config = pretraining_config("knet", "pretrain", shards, saliency_prompt=settings, image_root="images")
    assert config.model.type == "SaliencyPromptKNet"
    assert config.model.saliency_prompt == asdict(SaliencyPromptSettings(4, rescale=True, **settings))
    assert config.model.backbone.frozen_stages == 4
    assert config.model.backbone.norm_eval is True
    assert {value for key, value in flatten(config.to_dict()) if key.endswith("num_classes")} == {1}
    dataset = config.train_dataloader.dataset
    assert (dataset.shards, dataset.image_root) == (str(shards.directory), "images")
    assert "pretraining" not in config
    assert "epochs" not in config
    assert "milestones" not in config


def fragment_with_settings(path) -> str:
    """A model whose fragment has settings of its own for prompts."""
    path.write_text(
        f"_base_ = {str(CONFIGS / 'models' / 'knet.py')!r}\n"
        "pretraining = dict(saliency_prompt=dict(drop_prob=0.05, level=1))\n"
    )
    return str(path)


def test_the_models_settings_of_prompts_hold_unless_the_user_has_others(shards, tmp_path):
    model = fragment_with_settings(tmp_path / "model.py")
    config = pretraining_config(model, "pretrain", shards)
    assert config.model.saliency_prompt == asdict(SaliencyPromptSettings(4, rescale=True, drop_prob=0.05, level=1))
    config = pretraining_config(model, "pretrain", shards, saliency_prompt={"level": 2})
    assert config.model.saliency_prompt == asdict(SaliencyPromptSettings(4, rescale=True, drop_prob=0.05, level=2))


def test_without_prompts_it_is_the_plain_detector_and_all_else_the_same(shards, tmp_path):
    model = fragment_with_settings(tmp_path / "model.py")
    with_prompts, plain = (pretraining_config(model, "pretrain", shards, prompts=on).to_dict() for on in (True, False))
    assert plain["model"]["type"] == "KNet"
    assert plain["model"]["backbone"]["frozen_stages"] == 4
    with_prompts["model"]["type"] = "KNet"
    del with_prompts["model"]["saliency_prompt"]
    assert plain == with_prompts


def test_a_detector_without_a_variant_can_only_be_pretrained_without_prompts(shards, tmp_path):
    (tmp_path / "other.py").write_text(
        f"_base_ = {str(CONFIGS / 'models' / 'knet.py')!r}\nmodel = dict(type='Other')\n"
    )
    with pytest.raises(UserError, match=r"Other cannot take prompts: there is no SaliencyPromptOther; .*--prompts off"):
        pretraining_config(str(tmp_path / "other.py"), "pretrain", shards)
    assert pretraining_config(str(tmp_path / "other.py"), "pretrain", shards, prompts=False).model.type == "Other"


def test_settings_of_prompts_are_read_by_type_and_checked():
    options = ["matching=none", "match_on=object", "add_to=object", "rescale=true", "level=0", "detach=false"]
    assert parse_saliency_prompt([*options, "drop_prob=0.5", "kernel_loss_weight=0"]) == {
        "matching": "none",
        "match_on": "object",
        "add_to": "object",
        "rescale": True,
        "level": 0,
        "detach": False,
        "drop_prob": 0.5,
        "kernel_loss_weight": 0,
    }
    assert parse_saliency_prompt([]) == {}
    for option, message in (
        ("levl=0", r"^--saliency-prompt levl: no such setting; there are matching, .*, kernel_loss_weight$"),
        ("feature_dim=7", r"^--saliency-prompt feature_dim: no such setting"),
        ("level", r"^--saliency-prompt 'level': write it as key=value$"),
        ("level=[1,(2", r"^--saliency-prompt level=\[1,\(2: does not fit the config"),
        ("level=coarse", r"^saliency_prompt\.level 'coarse': use an integer$"),
        ("matching=nearest", r"^saliency_prompt\.matching 'nearest': use one of cosine, sequential, random, none$"),
    ):
        with pytest.raises(UserError, match=message):
            parse_saliency_prompt([option])


def test_a_length_of_seed_features_that_is_not_the_shards_is_refused(shards):
    wrong = Overrides(cfg_options=["model.saliency_prompt.feature_dim=2048"])
    message = (
        r"shards: its seed features, of lite0_imagenet, have 4 numbers, but model\.saliency_prompt\.feature_dim is 2048"
    )
    with pytest.raises(UserError, match=message):
        pretraining_config("knet", "pretrain", shards, overrides=wrong)


def test_a_model_may_have_settings_of_its_own(shards):
    config = pretraining_config("queryinst", "pretrain", shards, saliency_prompt={"matching": "none"})
    assert config.model.saliency_prompt == asdict(SaliencyPromptSettings(4, matching="none", drop_prob=0.05))


@pytest.mark.parametrize("model", ["knet", "queryinst", "mask_rcnn"])
def test_pretraining_without_prompts_trains_the_vanilla_model(shards, model):
    config = pretraining_config(model, "pretrain", shards, prompts=False)
    assert config.model.type == {"knet": "KNet", "queryinst": "QueryInst", "mask_rcnn": "MaskRCNN"}[model]
    assert "saliency_prompt" not in config.model
    assert config.model.backbone.frozen_stages == 4
    assert config.train_dataloader.dataset.shards == str(shards.directory)


@pytest.mark.parametrize(("model", "detector"), [("mask_rcnn", "MaskRCNN"), ("solov2_lite0", "SOLOv2")])
def test_models_without_queries_take_no_prompts(shards, model, detector):
    with pytest.raises(UserError, match=rf"^{detector} cannot take prompts: .*; pre-train it with --prompts off, or"):
        pretraining_config(model, "pretrain", shards)


@pytest.mark.parametrize("model", ["mask_rcnn", "solov2"])
def test_cnn_baselines_follow_the_paper(model):
    optim_wrapper = finetuning_config(model, "ctw1500").optim_wrapper
    assert optim_wrapper.optimizer == {"type": "SGD", "lr": 0.02, "momentum": 0.9, "weight_decay": 1e-4}
    assert optim_wrapper.type == "AccumulatingOptimWrapper"
    assert optim_wrapper.clip_grad is optim_wrapper.paramwise_cfg is None


def test_pretraining_takes_the_clusters_as_classes_when_asked(shards):
    with pytest.raises(UserError, match="no clusters; `make cluster"):
        pretraining_config("knet", "pretrain", shards, pseudo_classes=True)
    clusters = {"classes": 7, "seed": 3}
    write_clusters(shards.shard_paths[0], np.array([6], np.int32), clusters)
    config = pretraining_config("knet", "pretrain", shards, pseudo_classes=True)
    assert {value for key, value in flatten(config.model.to_dict()) if key.endswith("num_classes")} == {7}
    assert config.train_dataloader.dataset.pseudo_classes is True
    assert config.pseudo_labels.clusters == clusters  # another clustering is another run
    agnostic = pretraining_config("knet", "pretrain", shards)
    assert "clusters" not in agnostic.pseudo_labels
    assert "pseudo_classes" not in agnostic.train_dataloader.dataset


def test_pretraining_follows_the_paper(shards):
    coco = replace(shards, entries=(replace(shards.entries[0], images=123_403),))
    config = pretraining_config("knet", "pretrain", coco)
    assert config.optim_wrapper.optimizer == {"type": "AdamW", "lr": 1e-4, "weight_decay": 0.05}
    assert config.train_dataloader.batch_size * 8 == config.auto_scale_lr.base_batch_size == 96
    assert config.train_cfg.max_epochs == 12
    assert config.model.rpn_head.num_kernels == 100
    warm_up, steps = config.param_scheduler
    assert (warm_up.type, warm_up.end, warm_up.by_epoch) == ("LinearLR", 1000, False)
    assert (steps.milestones, steps.gamma) == ([8, 11], 0.1)
    transforms = {transform.type: transform for transform in config.train_dataloader.dataset.pipeline}
    assert transforms["Resize"].scale == (1333, 800)
    assert transforms["RandomFlip"].prob == 0.5
    assert "Rotate" not in transforms


def test_finetuning_is_vanilla_with_the_datasets_classes_and_epochs():
    config = finetuning_config("knet", "ctw1500", "finetune")
    assert config.model.type == "KNet"
    assert "saliency_prompt" not in config.model
    assert {value for key, value in flatten(config.to_dict()) if key.endswith("num_classes")} == {1}
    assert config.train_cfg.max_epochs == 96
    assert config.param_scheduler[1].milestones == [72, 88]
    assert config.optim_wrapper.paramwise_cfg.custom_keys.backbone.lr_mult == 0.25
    assert config.test_dataloader == config.val_dataloader
    assert config.test_evaluator == config.val_evaluator


def test_classes_follow_the_dataset(tmp_path):
    (tmp_path / "mine.py").write_text(
        'epochs = 4\nmilestones = (3,)\nmetainfo = dict(classes=("a", "b", "c"))\n'
        "train_dataloader = dict(dataset=dict(type='CocoDataset', metainfo=metainfo))\n"
        "val_dataloader = dict(dataset=dict(data_root='d', ann_file='a.json', metainfo=metainfo))\n"
        "val_evaluator = dict(type='MaskAP')\n"
    )
    config = finetuning_config("knet", str(tmp_path / "mine.py"), "finetune")
    assert {value for key, value in flatten(config.model.to_dict()) if key.endswith("num_classes")} == {3}
    assert config.val_evaluator.ann_file == config.test_evaluator.ann_file == "d/a.json"


def test_num_classes_is_set_however_deep():
    node = {"num_classes": 80, "heads": [{"num_classes": 80}, {"inner": ({"num_classes": 80},)}], "other": 80}
    set_num_classes(node, 7)
    assert node == {"num_classes": 7, "heads": [{"num_classes": 7}, {"inner": ({"num_classes": 7},)}], "other": 80}


def test_classes_are_things_and_weighed_alike():
    head = {"num_things_classes": 80, "num_stuff_classes": 53, "loss_cls": {"class_weight": [2.0] * 133 + [0.1]}}
    plain = {"loss_cls": {"class_weight": None}}
    node = {"head": head, "other": plain}
    for classes in (3, 1, 5):
        set_num_classes(node, classes)
        weights = [2.0] * classes + [0.1]
        assert head == {
            "num_things_classes": classes,
            "num_stuff_classes": 0,
            "loss_cls": {"class_weight": weights},
        }
    assert plain == {"loss_cls": {"class_weight": None}}


def test_overrides():
    options = ["optim_wrapper.optimizer.lr=3e-4", "model.rpn_head.num_kernels=7", "test_cfg.custom=[1,(2,3)]"]
    config = finetuning_config(
        "knet",
        "ctw1500",
        "finetune",
        overrides=Overrides(epochs=20, batch_size=3, workers=0, seed=5, auto_scale_lr=True, cfg_options=options),
    )
    assert config.train_cfg.max_epochs == 20
    assert config.param_scheduler[1].milestones == [15, 18]  # 75 % and 92 % of 20
    assert config.train_dataloader.batch_size == 3
    for part in ("train", "val", "test"):
        assert config[f"{part}_dataloader"].num_workers == 0
        assert config[f"{part}_dataloader"].persistent_workers is False
    assert config.randomness.seed == 5
    assert config.auto_scale_lr.enable is True
    assert config.optim_wrapper.optimizer.lr == 3e-4
    assert config.model.rpn_head.num_kernels == 7
    assert config.test_cfg.custom == [1, (2, 3)]


def test_what_validates_also_tests():
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


def test_the_dataset_names_its_schedule():
    for dataset, schedule in (("demo", "finetune_demo"), ("ctw1500", "finetune")):
        default, named = finetuning_config("knet", dataset), finetuning_config("knet", dataset, schedule)
        assert default.to_dict() == named.to_dict()


def test_warm_up_is_a_tenth_of_a_short_run_at_most(shards):
    config = pretraining_config("knet", "pretrain", shards, overrides=Overrides(epochs=100, total_batch=1))
    assert config.param_scheduler[0].end == 10 * shards.image_count


def test_options_outdo_what_pretraining_derives_from_them(shards):
    coco = replace(shards, entries=(replace(shards.entries[0], images=3000),))
    longer = Overrides(cfg_options=["train_cfg.total_batch=30", "train_cfg.max_epochs=20"])
    assert pretraining_config("knet", "pretrain", coco, overrides=longer).param_scheduler[0].end == 200
    own = Overrides(epochs=1, cfg_options=["param_scheduler.0.end=700", "train_cfg.total_batch=30"])
    assert pretraining_config("knet", "pretrain", coco, overrides=own).param_scheduler[0].end == 700


@pytest.mark.parametrize("epochs", [1, 5, 30])
def test_a_run_of_few_steps_reaches_its_learning_rate(shards, epochs):
    """MMEngine's warm-up of one step would last for ever."""
    config = pretraining_config("knet", "pretrain", shards, overrides=Overrides(epochs=epochs, total_batch=1))
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    warm_up = LinearLR(optimizer, **{k: v for k, v in config.param_scheduler[0].items() if k != "type"})
    rates = []
    for _ in range(max(3, epochs)):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        warm_up.step()
    assert rates[0] == pytest.approx(0.001)
    assert rates[max(2, epochs // 10) - 1 :] == pytest.approx([1.0] * (len(rates) - max(2, epochs // 10) + 1))


def test_fine_tuning_warms_up_for_a_tenth_at_most_too(write_labels):
    root = Overrides(data_root=str(write_labels(images=40)), total_batch=8)
    assert finetuning_config("knet", "ctw1500", overrides=root).param_scheduler[0].end == 96 * 5 // 10
    assert finetuning_config("knet", "ctw1500").param_scheduler[0].end == 100  # the labels are not there


def test_schedules_know_what_they_are_for(shards):
    with pytest.raises(UserError, match=r"^schedule finetune_demo: is not one for pre-training, as pretrain and"):
        pretraining_config("knet", "finetune_demo", shards)
    with pytest.raises(UserError, match=r"^schedule pretrain: is not one for fine-tuning, as finetune and"):
        finetuning_config("knet", "demo", "pretrain")


def test_settings_that_nobody_reads_are_refused(shards):
    for key, near in (("optim_wraper.optimizer.lr", "; optim_wrapper[?]"), ("sync_bm", "; sync_bn[?]"), ("zzz", "")):
        with pytest.raises(UserError, match=f"^--cfg-options {key}: no such setting{near}$"):
            pretraining_config("knet", "pretrain", shards, overrides=Overrides(cfg_options=[f"{key}=3"]))
    chosen = Overrides(cfg_options=["sync_bn=torch", "find_unused_parameters=True"])
    assert pretraining_config("knet", "pretrain", shards, overrides=chosen).sync_bn == "torch"


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


def test_warm_up_counts_steps(shards):
    coco = replace(shards, entries=(replace(shards.entries[0], images=9600),))
    for images in (1, 12):
        config = pretraining_config("knet", "pretrain", coco, overrides=Overrides(epochs=1, batch_size=images))
        assert config.param_scheduler[0].end == 10


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


def test_malformed_fragments_and_options_are_user_errors(tmp_path):
    (tmp_path / "broken.py").write_text("epochs = (\n")
    with pytest.raises(UserError, match=r"broken\.py: not a config file"):
        finetuning_config("knet", str(tmp_path / "broken.py"))
    (tmp_path / "thin.py").write_text("epochs = 3\n")
    with pytest.raises(UserError, match=r"thin\.py: lacks milestones"):
        finetuning_config("knet", str(tmp_path / "thin.py"))
    for option in ("train_dataloader.dataset.pipeline.99.x=1", "train_dataloader.batch_size.x=1", "custom=[1,(2"):
        with pytest.raises(UserError, match="does not fit the config"):
            finetuning_config("knet", "demo", overrides=Overrides(cfg_options=[option]))


def test_user_errors_name_what_there_is(tmp_path):
    with pytest.raises(UserError, match=r"no model 'knot': pass one of .*knet"):
        finetuning_config("knot", "ctw1500", "finetune")
    with pytest.raises(UserError, match=r"no dataset 'ctw': pass one of .*ctw1500, demo, .*, COCO JSON or a folder"):
        finetuning_config("knet", "ctw", "finetune")
    with pytest.raises(UserError, match=r"no schedule 'a\.py'"):
        finetuning_config("knet", "ctw1500", "a.py")
    with pytest.raises(UserError, match="'lr': write it as key=value"):
        finetuning_config("knet", "ctw1500", "finetune", overrides=Overrides(cfg_options=["lr"]))


def test_composed_configs_survive_being_written(tmp_path, shards):
    for config in (
        pretraining_config("knet_lite0", "pretrain_demo", shards),
        finetuning_config("knet", "demo", "finetune_demo"),
    ):
        config.dump(tmp_path / "config.py")
        assert "_base_" not in (tmp_path / "config.py").read_text()
        assert Config.fromfile(tmp_path / "config.py").to_dict() == config.to_dict()
