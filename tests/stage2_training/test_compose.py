import json
from dataclasses import replace
from importlib.util import find_spec

import numpy as np
import pytest
from mmengine.config import Config

from stage1_proposals.errors import UserError
from stage1_proposals.shards import write_clusters
from stage2_training import compose
from stage2_training.compose import check_annotations, finetuning_config, pretraining_config, set_num_classes
from stage2_training.options import Overrides
from stage2_training.work_dir import flatten


@pytest.fixture
def shards(write_shards, make_record, rectangles):
    record = make_record(1, "1.png", rectangles([(0, 0, 8, 8)], 16, 16), [[1, 2, 3, 4]])
    return write_shards([[record]], {"feature_dim": 4}, photos=False)


def test_pretraining_is_class_agnostic_with_prompts_and_a_frozen_backbone(shards):
    config = pretraining_config("knet", "pretrain", shards, matching="random", image_root="photos")
    assert config.model.type == "SaliencyPromptKNet"
    assert config.model.saliency_prompt == {"matching": "random", "feature_dim": 4}
    assert config.model.backbone.frozen_stages == 4
    assert config.model.backbone.norm_eval is True
    assert {value for key, value in flatten(config.to_dict()) if key.endswith("num_classes")} == {1}
    dataset = config.train_dataloader.dataset
    assert (dataset.shards, dataset.image_root) == (str(shards.directory), "photos")
    assert "pretraining" not in config
    assert "epochs" not in config
    assert "milestones" not in config


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
    coco = replace(shards, shards=({**shards.shards[0], "images": 123_403},))
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


def test_overrides():
    options = ["optim_wrapper.optimizer.lr=3e-4", "model.rpn_head.num_kernels=7", "custom=[1,(2,3)]"]
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
    assert config.custom == [1, (2, 3)]


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
    coco = replace(shards, shards=({**shards.shards[0], "images": 3000},))
    longer = Overrides(cfg_options=["train_cfg.total_batch=30", "train_cfg.max_epochs=20"])
    assert pretraining_config("knet", "pretrain", coco, overrides=longer).param_scheduler[0].end == 200
    own = Overrides(epochs=1, cfg_options=["param_scheduler.0.end=700", "train_cfg.total_batch=30"])
    assert pretraining_config("knet", "pretrain", coco, overrides=own).param_scheduler[0].end == 700


@pytest.mark.parametrize(("processes", "images"), [(1, 12), (8, 12), (16, 6), (32, 3)])
def test_the_total_batch_is_shared_among_the_processes(shards, monkeypatch, processes, images):
    monkeypatch.setattr(compose, "get_world_size", lambda: processes)
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
    coco = replace(shards, shards=({**shards.shards[0], "images": 9600},))
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


def test_tensorboard_is_asked_for_by_name_where_it_is_missing(shards):
    asked = Overrides(tensorboard=True)
    if find_spec("tensorboard") is None:
        with pytest.raises(UserError, match=r"^--tensorboard: the package tensorboard is not installed; `pip install"):
            pretraining_config("knet", "pretrain", shards, overrides=asked)
    else:
        backends = pretraining_config("knet", "pretrain", shards, overrides=asked).visualizer.vis_backends
        assert [backend.type for backend in backends] == ["LocalVisBackend", "TensorboardVisBackend"]


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


def test_labels_without_the_datasets_class_are_refused(tmp_path):
    (tmp_path / "annotations").mkdir()
    for split in ("train", "test"):
        labels = {"images": [], "annotations": [], "categories": [{"id": 1, "name": "txt"}]}
        (tmp_path / "annotations" / f"{split}.json").write_text(json.dumps(labels))
    config = finetuning_config("knet", "ctw1500", overrides=Overrides(data_root=str(tmp_path)))
    with pytest.raises(UserError, match=r"train\.json: has no category 'text'; it has 'txt'"):
        check_annotations(config, ["train", "val"])


IMAGE = {"id": 1, "file_name": "1.jpg", "height": 9, "width": 9}
TEXT, OTHER = {"id": 1, "name": "text"}, {"id": 2, "name": "other"}


def annotation(image: int, category: int, crowd: int) -> dict:
    return {"id": 1, "image_id": image, "category_id": category, "iscrowd": crowd}


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ({"images": [IMAGE]}, r"not COCO JSON with images, annotations and categories \('annotations'\)"),
        ({"annotations": []}, r"not COCO JSON with images, annotations and categories \('images'\)"),
        ({"images": [IMAGE], "annotations": ["a"]}, "not COCO JSON"),
        ({"images": [IMAGE], "annotations": None}, "not COCO JSON"),
        ({"images": [], "annotations": []}, "has no images"),
        ({"images": [IMAGE], "annotations": []}, "nothing to train on; its images have no object of 'text'"),
        ({"images": [IMAGE], "annotations": [annotation(1, 1, 1)]}, "nothing to train on"),
        ({"images": [IMAGE], "annotations": [annotation(1, 2, 0)]}, "nothing to train on"),
        ({"images": [IMAGE], "annotations": [annotation(7, 1, 0)]}, "nothing to train on"),
    ],
)
def test_labels_without_an_object_are_refused(tmp_path, labels, message):
    path = tmp_path / "annotations" / "train.json"
    path.parent.mkdir()
    path.write_text(json.dumps({"categories": [TEXT, OTHER], **labels}))
    config = finetuning_config("knet", "ctw1500", overrides=Overrides(data_root=str(tmp_path)))
    with pytest.raises(UserError, match=rf"train\.json: {message}"):
        check_annotations(config, ["train"])


def test_one_object_is_enough_to_train_on_and_none_to_evaluate(tmp_path):
    (tmp_path / "annotations").mkdir()
    for split, annotations in (("train", [annotation(1, 1, 1), annotation(1, 1, 0)]), ("test", [])):
        labels = {"images": [IMAGE], "annotations": annotations, "categories": [TEXT]}
        (tmp_path / "annotations" / f"{split}.json").write_text(json.dumps(labels))
    config = finetuning_config("knet", "ctw1500", overrides=Overrides(data_root=str(tmp_path)))
    check_annotations(config, ["train", "val", "test"])


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
    with pytest.raises(UserError, match="no dataset 'ctw': pass one of ctw1500, demo"):
        finetuning_config("knet", "ctw", "finetune")
    with pytest.raises(UserError, match=r"no schedule 'a\.py'"):
        finetuning_config("knet", "ctw1500", "a.py")
    with pytest.raises(UserError, match=r"'lr': write it as key\.path=value"):
        finetuning_config("knet", "ctw1500", "finetune", overrides=Overrides(cfg_options=["lr"]))
    config = finetuning_config("knet", "ctw1500", "finetune")
    config.train_dataloader.dataset.data_root = str(tmp_path)
    config.val_dataloader.dataset.data_root = str(tmp_path)
    with pytest.raises(UserError, match=r"annotations/test\.json: no such file; `make data`"):
        check_annotations(config, ["val", "train"])


def test_composed_configs_survive_being_written(tmp_path, shards):
    for config in (
        pretraining_config("knet_lite0", "pretrain_demo", shards),
        finetuning_config("knet", "demo", "finetune_demo"),
    ):
        config.dump(tmp_path / "config.py")
        assert "_base_" not in (tmp_path / "config.py").read_text()
        assert Config.fromfile(tmp_path / "config.py").to_dict() == config.to_dict()
