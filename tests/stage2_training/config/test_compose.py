from dataclasses import asdict

import numpy as np
import pytest
from mmengine.config import Config

from stage1_proposals.common.errors import UserError
from stage1_proposals.shards import ClusterRecord, write_clusters
from stage2_training.config.compose import (
    CONFIGS,
    finetuning_config,
    parse_saliency_prompt,
    pretraining_config,
    set_num_classes,
)
from stage2_training.config.overrides import Overrides
from stage2_training.runs.work_dir import flatten
from stage2_training.saliency_prompt.detectors import detector_traits
from stage2_training.saliency_prompt.settings import SaliencyPromptSettings

# Keys of composed configs that MMDetection ignores, and why they are there: see `compose`.
OWN_KEYS = {"pseudo_labels", "labels", "objects", "training_images"}
RATE = "optim_wrapper = dict(optimizer=dict(lr={lr}))\n"


@pytest.fixture
def shards(write_shards, make_record, rectangles):
    record = make_record(1, "1.png", rectangles([(0, 0, 8, 8)], 16, 16), [[1, 2, 3, 4]])
    return write_shards([[record]], {"feature_dim": 4}, images=False)


def numbers_of_classes(node) -> set[int]:
    return {value for key, value in flatten(node.to_dict()) if key.endswith("num_classes")}


def test_pretraining_is_class_agnostic_with_prompts_and_a_frozen_backbone(shards):
    settings = {"matching": "random", "level": 0}
    config = pretraining_config("knet", "pretrain", shards, saliency_prompt=settings, image_root="images")
    assert config.model.type == "SaliencyPromptKNet"
    assert config.model.saliency_prompt == asdict(SaliencyPromptSettings(4, rescale=True, **settings))
    assert config.model.backbone.frozen_stages == 4
    assert config.model.backbone.norm_eval is True
    assert numbers_of_classes(config) == {1}
    dataset = config.train_dataloader.dataset
    assert (dataset.shards, dataset.image_root) == (str(shards.directory), "images")


def write_variant(path) -> str:
    """A config file of a model whose prompts have other settings."""
    path.write_text(
        f"_base_ = {str(CONFIGS / 'pretraining' / 'knet.py')!r}\n"
        "model = dict(saliency_prompt=dict(drop_prob=0.05, level=1))\n"
    )
    return str(path)


def test_options_override_a_models_settings_of_prompts(shards, tmp_path):
    model = write_variant(tmp_path / "model.py")
    config = pretraining_config(model, "pretrain", shards)
    assert config.model.saliency_prompt == asdict(SaliencyPromptSettings(4, rescale=True, drop_prob=0.05, level=1))
    config = pretraining_config(model, "pretrain", shards, saliency_prompt={"level": 2})
    assert config.model.saliency_prompt == asdict(SaliencyPromptSettings(4, rescale=True, drop_prob=0.05, level=2))


def test_without_prompts_only_the_model_differs(shards):
    with_prompts, plain = (pretraining_config("knet", "pretrain", shards, prompts=on).to_dict() for on in (True, False))
    assert plain["model"]["type"] == "KNet"
    assert plain["model"]["backbone"]["frozen_stages"] == 4
    with_prompts["model"]["type"] = "KNet"
    del with_prompts["model"]["saliency_prompt"]
    assert plain == with_prompts


def test_a_model_without_a_variant_can_only_be_pretrained_without_prompts(shards, tmp_path):
    other = tmp_path / "other.py"
    other.write_text(f"_base_ = {str(CONFIGS / 'models' / 'knet.py')!r}\nmodel = dict(type='Other')\n")
    with pytest.raises(UserError, match=r"other\.py: its model has no saliency_prompt; .* with --prompts off$"):
        pretraining_config(str(other), "pretrain", shards)
    assert pretraining_config(str(other), "pretrain", shards, prompts=False).model.type == "Other"


def test_a_backbone_that_cannot_be_frozen_gets_no_such_argument(shards, tmp_path):
    other = tmp_path / "other.py"
    other.write_text(
        f"_base_ = {str(CONFIGS / 'models' / 'knet.py')!r}\nmodel = dict(backbone=dict(_delete_=True, type='Other'))\n"
    )
    config = pretraining_config(str(other), "pretrain", shards, prompts=False)
    assert config.model.backbone == {"type": "Other"}


def test_a_module_that_a_model_names_is_imported_besides_the_projects_own(shards, tmp_path, monkeypatch):
    (tmp_path / "my_detectors.py").write_text(
        "from stage2_training.saliency_prompt.detectors import DetectorTraits, declare_traits\n"
        "declare_traits('MyDetector', traits=DetectorTraits(pretrained_parts=('my_head',)))\n"
    )
    model = tmp_path / "mine.py"
    model.write_text(
        f"_base_ = {str(CONFIGS / 'models' / 'knet.py')!r}\nmodel = dict(type='MyDetector')\n"
        "custom_imports = dict(imports=['my_detectors'])\n"
    )
    with pytest.raises(UserError, match=r"^custom_imports my_detectors: cannot be imported \("):
        finetuning_config(str(model), "demo")
    monkeypatch.syspath_prepend(tmp_path)
    modules = finetuning_config("knet", "demo").custom_imports.imports
    for config in (
        finetuning_config(str(model), "demo"),
        pretraining_config(str(model), "pretrain", shards, prompts=False),
    ):
        assert config.custom_imports.imports == [*modules, "my_detectors"]
        # The command asks for the traits before the run's config is read, and so before MMEngine imports modules.
        assert detector_traits(config.model.type).pretrained_parts == ("my_head",)


def test_a_variant_is_no_plain_detector(shards, tmp_path):
    model = write_variant(tmp_path / "model.py")
    for compose in (
        lambda: pretraining_config(model, "pretrain", shards, prompts=False),
        lambda: finetuning_config(model, "demo"),
    ):
        with pytest.raises(
            UserError, match=r"model\.py: is a Saliency Prompt variant, .* name the plain detector here"
        ):
            compose()


def test_settings_of_prompts_are_parsed_and_checked():
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
        ("level=coarse", r"^saliency_prompt\.level 'coarse': should be a valid integer$"),
        (
            "matching=nearest",
            r"^saliency_prompt\.matching 'nearest': should be 'cosine', 'sequential', 'random', 'mean' or 'none'$",
        ),
    ):
        with pytest.raises(UserError, match=message):
            parse_saliency_prompt([option])


def test_a_length_of_seed_features_other_than_the_shards_is_refused(shards):
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
def test_pretraining_without_prompts_trains_the_plain_detector(shards, model):
    config = pretraining_config(model, "pretrain", shards, prompts=False)
    assert config.model.type == {"knet": "KNet", "queryinst": "QueryInst", "mask_rcnn": "MaskRCNN"}[model]
    assert "saliency_prompt" not in config.model
    assert config.model.backbone.frozen_stages == 4
    assert config.train_dataloader.dataset.shards == str(shards.directory)


@pytest.mark.parametrize(("model", "detector"), [("mask_rcnn", "MaskRCNN"), ("mask_rcnn_lite0", "MaskRCNN")])
def test_models_without_a_variant_take_no_prompts(shards, model, detector):
    with pytest.raises(UserError, match=rf"^{detector} cannot take prompts: .*; pre-train it with --prompts off, or"):
        pretraining_config(model, "pretrain", shards)


@pytest.mark.parametrize("model", ["mask_rcnn", "solov2"])
def test_cnn_baselines_follow_the_paper(model):
    optim_wrapper = finetuning_config(model, "ctw1500").optim_wrapper
    assert optim_wrapper.optimizer == {"type": "SGD", "lr": 0.02, "momentum": 0.9, "weight_decay": 1e-4}
    assert optim_wrapper.type == "AccumulatingOptimWrapper"
    assert optim_wrapper.clip_grad is optim_wrapper.paramwise_cfg is None


def test_pretraining_may_take_clusters_as_classes(shards):
    with pytest.raises(UserError, match="no clusters; `make cluster"):
        pretraining_config("knet", "pretrain", shards, pseudo_classes=True)
    clusters = ClusterRecord(classes=7, seed=3)
    write_clusters(shards.shard_paths[0], np.array([6], np.int32), clusters)
    config = pretraining_config("knet", "pretrain", shards, pseudo_classes=True)
    assert numbers_of_classes(config.model) == {7}
    assert config.train_dataloader.dataset.pseudo_classes is True
    assert config.pseudo_labels.clusters == {"classes": 7, "seed": 3}  # another clustering is another run
    agnostic = pretraining_config("knet", "pretrain", shards)
    assert "clusters" not in agnostic.pseudo_labels
    assert "pseudo_classes" not in agnostic.train_dataloader.dataset


def test_pretraining_follows_the_paper(shards):
    config = pretraining_config("knet", "pretrain", shards)
    assert config.optim_wrapper.optimizer == {"type": "AdamW", "lr": 1e-4, "weight_decay": 0.05}
    assert config.train_dataloader.batch_size * 8 == config.auto_scale_lr.base_batch_size == 96
    assert config.train_cfg.max_epochs == 12
    assert config.model.rpn_head.num_kernels == 100
    warm_up, steps = config.param_scheduler
    assert (warm_up.type, warm_up.steps, warm_up.by_epoch) == ("ShortWarmUpLR", 1000, False)
    assert (steps.milestones, steps.of_epochs, steps.gamma) == ([8, 11], 12, 0.1)
    transforms = {transform.type: transform for transform in config.train_dataloader.dataset.pipeline}
    assert transforms["Resize"].scale == (1333, 800)
    assert transforms["RandomFlip"].prob == 0.5
    assert "Rotate" not in transforms


def test_finetuning_trains_the_plain_detector_on_the_datasets_classes():
    config = finetuning_config("knet", "ctw1500", "finetune")
    assert config.model.type == "KNet"
    assert "saliency_prompt" not in config.model
    assert config.model.test_cfg.rescore is True
    assert numbers_of_classes(config) == {1}
    assert config.train_cfg.max_epochs == 96
    assert config.optim_wrapper.paramwise_cfg.custom_keys.backbone.lr_mult == 0.25
    assert config.test_dataloader == config.val_dataloader
    assert config.test_evaluator == config.val_evaluator


@pytest.mark.parametrize(
    ("model", "schedule", "init", "rate"),
    [
        ("knet_lite0", "finetune_cpu", "sp", 4e-4),
        ("knet_lite0", "finetune_demo", "pseudo", 4e-4),
        ("knet_lite0", "finetune_demo", "imagenet", 8e-4),
        ("queryinst_lite0", "finetune_demo", "sp", 8e-4),
        ("mask_rcnn_lite0", "finetune_demo", "sp", 0.005),  # its config's own
        ("knet", "finetune", "sp", 1e-4),  # the paper's
    ],
)
def test_a_pretrained_knet_is_finetuned_with_smaller_steps_on_a_cpu(model, schedule, init, rate):
    config = finetuning_config(model, "ctw1500", schedule, init=init)
    assert config.optim_wrapper.optimizer.lr == rate
    assert "lr_factor_of" not in config


def test_a_rate_of_ones_own_is_not_changed(tmp_path):
    schedule, model = tmp_path / "slow.py", tmp_path / "mine.py"
    schedule.write_text(f"_base_ = {str(CONFIGS / 'schedules' / 'finetune_cpu.py')!r}\n{RATE.format(lr=2e-4)}")
    model.write_text(f"_base_ = {str(CONFIGS / 'models' / 'knet_lite0.py')!r}\n{RATE.format(lr=3e-4)}")
    halved = finetuning_config("knet_lite0", "ctw1500", str(schedule), init="sp")
    assert halved.optim_wrapper.optimizer.lr == 1e-4  # half of the schedule's
    kept = finetuning_config(str(model), "ctw1500", str(schedule), init="sp")
    assert kept.optim_wrapper.optimizer.lr == 3e-4


def test_classes_are_the_datasets(tmp_path):
    (tmp_path / "mine.py").write_text(
        'train_cfg = dict(max_epochs=4)\nmetainfo = dict(classes=("a", "b", "c"))\n'
        "train_dataloader = dict(dataset=dict(type='CocoDataset', metainfo=metainfo))\n"
        "val_dataloader = dict(dataset=dict(data_root='d', ann_file='a.json', metainfo=metainfo))\n"
        "val_evaluator = dict(type='MaskAP')\n"
    )
    config = finetuning_config("knet", str(tmp_path / "mine.py"), "finetune")
    assert numbers_of_classes(config.model) == {3}
    assert config.val_evaluator.ann_file == config.test_evaluator.ann_file == "d/a.json"


def test_num_classes_is_set_at_any_depth():
    node = {"num_classes": 80, "heads": [{"num_classes": 80}, {"inner": ({"num_classes": 80},)}], "other": 80}
    set_num_classes(node, 7)
    assert node == {"num_classes": 7, "heads": [{"num_classes": 7}, {"inner": ({"num_classes": 7},)}], "other": 80}


def test_classes_are_things_of_equal_weight():
    head = {"num_things_classes": 80, "num_stuff_classes": 53, "loss_cls": {"class_weight": [2.0] * 133 + [0.1]}}
    unweighted = {"loss_cls": {"class_weight": None}}
    node = {"head": head, "other": unweighted}
    for classes in (3, 1, 5):
        set_num_classes(node, classes)
        weights = [2.0] * classes + [0.1]
        assert head == {
            "num_things_classes": classes,
            "num_stuff_classes": 0,
            "loss_cls": {"class_weight": weights},
        }
    assert unweighted == {"loss_cls": {"class_weight": None}}


def test_the_dataset_names_its_schedule():
    for dataset, schedule in (
        ("demo", "finetune_demo"),
        ("ctw1500", "finetune"),
        ("cityscapes", "finetune_cityscapes"),
    ):
        default, named = finetuning_config("knet", dataset), finetuning_config("knet", dataset, schedule)
        assert default.to_dict() == named.to_dict()


def test_schedules_are_for_one_kind_of_training(shards):
    with pytest.raises(
        UserError,
        match=r"^schedule finetune_demo: is not for pre-training: it does not set train_cfg\.max_epochs; pretrain",
    ):
        pretraining_config("knet", "finetune_demo", shards)
    with pytest.raises(UserError, match=r"^schedule pretrain: is not for fine-tuning: it sets train_cfg\.max_epochs, "):
        finetuning_config("knet", "demo", "pretrain")


def test_malformed_fragments_are_user_errors(tmp_path):
    fragment = tmp_path / "a.py"
    loader = "dict(dataset=dict(metainfo=dict(classes={classes})))"
    for text, message in (
        ("train_cfg = (\n", "not a config file"),
        ("train_dataloader = dict()\n", r"lacks train_cfg\.max_epochs; configs/datasets/ctw1500\.py shows what"),
        ("train_cfg = dict(max_epochs=3)\n", r"lacks train_dataloader\.dataset\.metainfo\.classes"),
        (
            f"train_cfg = dict(max_epochs=3)\ntrain_dataloader = {loader.format(classes='()')}\n",
            r"lacks train_dataloader\.dataset\.metainfo\.classes",
        ),
        (
            f"train_cfg = dict(max_epochs=3)\ntrain_dataloader = {loader.format(classes=repr('text'))}\n"
            f"val_dataloader = dict(dataset=dict(type='CocoDataset'))\nval_evaluator = dict(type='MaskAP')\n",
            r"metainfo\.classes 'text': use a tuple of names",
        ),
    ):
        fragment.write_text(text)
        with pytest.raises(UserError, match=rf"a\.py: {message}"):
            finetuning_config("knet", str(fragment))


def test_user_errors_name_what_exists(shards, tmp_path):
    with pytest.raises(UserError, match=r"no model 'knot': pass one of .*knet"):
        finetuning_config("knot", "ctw1500", "finetune")
    for prompts in (True, False):
        with pytest.raises(UserError, match=r"no model 'knot': pass one of .*knet"):
            pretraining_config("knot", "pretrain", shards, prompts=prompts)
    with pytest.raises(UserError, match=r"no dataset 'ctw': pass one of .*ctw1500, demo, .*, COCO JSON, a folder"):
        finetuning_config("knet", "ctw", "finetune")
    with pytest.raises(UserError, match=r"no schedule 'a\.py'"):
        finetuning_config("knet", "ctw1500", "a.py")


def test_composed_configs_survive_being_written(tmp_path, shards):
    for config in (
        pretraining_config("knet_lite0", "pretrain_demo", shards),
        finetuning_config("knet", "demo", "finetune_demo"),
    ):
        config.dump(tmp_path / "config.py")
        assert "_base_" not in (tmp_path / "config.py").read_text()
        read = Config.fromfile(tmp_path / "config.py", import_custom_modules=False)
        assert read.to_dict() == config.to_dict()


def test_few_keys_are_not_mmdetections(shards):
    known = {
        *("auto_scale_lr", "custom_hooks", "custom_imports", "default_hooks", "default_scope", "env_cfg"),
        *("find_unused_parameters", "load_from", "log_level", "log_processor", "model", "optim_wrapper"),
        *("param_scheduler", "randomness", "resume", "visualizer"),
        *(f"{part}_{kind}" for part in ("train", "val", "test") for kind in ("cfg", "dataloader", "evaluator")),
    }
    for path in (CONFIGS / "models").glob("*.py"):
        prompts = not path.stem.startswith("mask_rcnn")
        pretraining = pretraining_config(path.stem, "pretrain_demo", shards, prompts=prompts)
        for config in (pretraining, finetuning_config(path.stem, "demo"), finetuning_config(path.stem, "coco10")):
            assert set(config) - known <= OWN_KEYS
