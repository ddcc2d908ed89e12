"""Every model fragment, composed as the commands do it, trains and predicts."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mmdet.registry import DATASETS, MODELS
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.optim import build_optim_wrapper
from mmengine.registry import DefaultScope

import stage2_training.engine.optimizer
import stage2_training.models.mmdet_fixes
import stage2_training.models.timm_backbone  # noqa: F401 (they register what the configs name)
from stage1_proposals.common.errors import UserError
from stage1_proposals.common.masks import encode_masks, mask_areas, mask_fields
from stage1_proposals.shards import ShardSet
from stage2_training.config.compose import CONFIGS, finetuning_config, pretraining_config
from stage2_training.config.overrides import Overrides
from stage2_training.evaluation.coco_metric import MaskAP
from stage2_training.inference.predictor import Predictor
from stage2_training.runs import initial_weights
from stage2_training.saliency_prompt.detectors import detector_traits

ALL = sorted(file.stem for file in (CONFIGS / "models").glob("*.py"))
SMALL = [name for name in ALL if name.endswith("_lite0") and name != "knet_lite0"]
WITHOUT_QUERIES = ("mask_rcnn", "solov2")
WITHOUT_VARIANT = "mask_rcnn"  # of pre-training
WITHOUT_MASKS = ("detr", "deformable_detr")


@pytest.fixture
def shards(write_shards: Callable, make_record: Callable, rectangles: Callable) -> ShardSet:
    """Two images with three masks and one."""
    rng = np.random.default_rng(0)
    records = []
    for number, count in enumerate((3, 1)):
        masks = rectangles([(20 * m, 10, 20 * m + 30, 60 + 20 * m) for m in range(count)], 90, 120)
        records.append(make_record(number, f"{number}.png", masks, rng.standard_normal((count, 5))))
    return write_shards([records], {"feature_dim": 5})


def pretraining(name: str, shards: ShardSet, variant: bool = True, **overrides: Any) -> Config:
    prompts = variant and not name.startswith(WITHOUT_VARIANT)
    return pretraining_config(name, "pretrain_demo", shards, prompts=prompts, overrides=Overrides(**overrides))


def built(config: Config) -> torch.nn.Module:
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope("mmdet"):
        model = MODELS.build(config.model)
    model.init_weights()
    return model.train()


@pytest.mark.parametrize("name", ALL)
def test_fragments_compose(name: str, shards: ShardSet) -> None:
    prompted, plain = pretraining(name, shards).model, finetuning_config(name, "ctw1500").model
    assert prompted.type.removeprefix("SaliencyPrompt") == plain.type
    assert (prompted.type == plain.type) == name.startswith(WITHOUT_VARIANT)
    assert prompted.backbone.frozen_stages == (-1 if name == "solov2" else 4)  # as in FreeSOLO
    assert plain.backbone.frozen_stages == 1


@pytest.mark.parametrize("amp", [False, True])
@pytest.mark.parametrize(("name", "variant"), [*((name, True) for name in SMALL), ("solov2_lite0", False)])
def test_a_step_of_pretraining(name: str, variant: bool, amp: bool, shards: ShardSet) -> None:
    """On samples that the pipeline makes of shards."""
    config = pretraining(name, shards, variant, amp=amp, image_size=128)
    model = built(config)
    with DefaultScope.overwrite_default_scope("mmdet"):
        dataset = DATASETS.build(config.train_dataloader.dataset)
        data = pseudo_collate([dataset[0], dataset[1]])
        wrapper = build_optim_wrapper(model, config.optim_wrapper)
    frozen = {key: value.clone() for key, value in model.backbone.state_dict().items()}
    head = {key: value.clone() for key, value in model.named_parameters() if value.requires_grad}
    losses = model.train_step(data, wrapper)
    assert losses["loss"].isfinite()
    assert ("s0.loss_kernel" in losses) == (variant and not name.startswith(WITHOUT_VARIANT))
    assert all(torch.equal(value, frozen[key]) for key, value in model.backbone.state_dict().items())
    assert any(not torch.equal(value, head[key]) for key, value in model.named_parameters() if key in head)


@pytest.mark.parametrize("name", SMALL)
def test_the_metric_scores_what_a_fine_tuned_model_predicts(name: str, make_batch: Callable, tmp_path: Path) -> None:
    """One of its masks, or of its boxes, is the labelled object, so AP must be above 0."""
    every_score = ["model.test_cfg.score_thr=0", "model.test_cfg.filter_thr=0"] if name.startswith("solov2") else []
    model = built(finetuning_config(name, "ctw1500", overrides=Overrides(cfg_options=every_score)))
    images, samples = make_batch([2, 0])
    for number, sample in enumerate(samples):
        sample.gt_instances.labels.zero_()
        sample.set_metainfo({"img_id": number})
    losses = model(images, samples, mode="loss")
    assert model.parse_losses(losses)[0].isfinite()
    with torch.no_grad():
        predicted = model.eval()(images, samples, mode="predict")
    if boxes_alone := name.startswith(WITHOUT_MASKS):
        (x1, y1, x2, y2), *_ = predicted[0].pred_instances.bboxes.tolist()
        outline = [x1, y1, x2, y1, x2, y2, x1, y2]
        fields = {"bbox": [x1, y1, x2 - x1, y2 - y1], "segmentation": [outline], "area": (x2 - x1) * (y2 - y1)}
    else:
        masks = encode_masks(predicted[0].pred_instances.masks.numpy())
        fields = mask_fields(next(mask for mask, area in zip(masks, mask_areas(masks), strict=True) if area))
    objects = [{"id": 1, "image_id": 0, "category_id": 1, "iscrowd": 0, **fields}]
    entries = [{"id": number, "file_name": f"{number}.jpg", "width": 180, "height": 120} for number in range(2)]
    labels = {"images": entries, "annotations": objects, "categories": [{"id": 1, "name": "text"}]}
    (tmp_path / "labels.json").write_text(json.dumps(labels))
    metric = MaskAP(str(tmp_path / "labels.json"))
    metric.dataset_meta = {"classes": ("text",)}
    metric.process(None, [sample.to_dict() for sample in predicted])
    scores = metric.evaluate(2)
    assert 0 < scores["coco/box_AP" if boxes_alone else "coco/AP"] <= 1
    assert ("coco/AP" in scores) != boxes_alone


@pytest.mark.parametrize("name", ["solov2_lite0", "detr_lite0", "deformable_detr_lite0"])
def test_a_step_of_fine_tuning_after_pretraining(
    name: str, shards: ShardSet, make_batch: Callable, tmp_path: Path
) -> None:
    """Fine-tuning starts from all that pre-training has learnt but the classes."""
    config = finetuning_config(name, "coco10")
    pretrained, model = built(pretraining(name, shards)), built(config)
    torch.save({"state_dict": pretrained.state_dict()}, tmp_path / "pretrained.pth")
    start = initial_weights.pretrained(name, config.model.type, str(tmp_path / "pretrained.pth"))
    found, class_branch = start.match(model.state_dict()).found, detector_traits(config.model.type).class_branch
    missing = model.state_dict().keys() - found.keys()
    assert missing
    assert all(class_branch.search(key) for key in missing)
    model.load_state_dict(found, strict=False)
    images, samples = make_batch([2, 1])
    data = {"inputs": [(image.sigmoid() * 255).byte() for image in images], "data_samples": samples}
    with DefaultScope.overwrite_default_scope("mmdet"):
        wrapper = build_optim_wrapper(model, config.optim_wrapper)
    assert model.train_step(data, wrapper)["loss"].isfinite()


@pytest.mark.parametrize("name", [name for name in SMALL if not name.startswith(WITHOUT_QUERIES)])
def test_fewer_queries_than_the_config_has(name: str, make_batch: Callable) -> None:
    """They cannot find as many objects of one class as the config lets the model return."""
    model = built(finetuning_config(name, "ctw1500", overrides=Overrides(queries=20)))
    images, samples = make_batch([1])
    with torch.no_grad():
        (predicted,) = model.eval()(images, samples, mode="predict")
    assert len(predicted.pred_instances) == 20


def test_the_published_settings_of_up_detr(shards: ShardSet) -> None:
    config = pretraining_config("detr", "pretrain", shards)
    prompts, data = config.model.saliency_prompt, config.train_dataloader.dataset
    assert (config.model.num_queries, data.max_proposals, data.choose) == (100, 10, "random")
    assert (prompts.matching, prompts.groups, prompts.drop_prob) == ("random", True, 0.1)
    assert (prompts.kernel_loss, prompts.kernel_target) == ("reconstruct", "prompt")
    assert prompts.kernel_loss_weight == 2.0  # of half the squared distance
    optimizer = config.optim_wrapper
    assert (optimizer.optimizer.lr, optimizer.optimizer.weight_decay, optimizer.clip_grad.max_norm) == (1e-4, 1e-4, 0.1)


def test_the_published_settings_of_detreg(shards: ShardSet) -> None:
    config = pretraining_config("deformable_detr", "pretrain", shards)
    prompts, data = config.model.saliency_prompt, config.train_dataloader.dataset
    assert (config.model.num_queries, data.max_proposals, data.get("choose", "best")) == (300, 30, "best")
    assert (prompts.matching, prompts.kernel_loss, prompts.kernel_target) == ("none", "regress", "seed")
    keys = config.optim_wrapper.paramwise_cfg.custom_keys
    assert keys.sampling_offsets.lr_mult == keys.reference_points.lr_mult == 0.1
    assert (config.optim_wrapper.optimizer.weight_decay, config.optim_wrapper.clip_grad.max_norm) == (1e-4, 0.1)


def test_the_published_settings_of_freesolo(shards: ShardSet) -> None:
    config = pretraining_config("solov2", "pretrain", shards)
    prompts, head = config.model.saliency_prompt, config.model.mask_head
    assert (prompts.matching, prompts.kernel_loss, prompts.kernel_target) == ("none", "reconstruct", "seed")
    assert prompts.kernel_loss_weight == 4.0
    loss = MODELS.build(head.loss_mask)
    assert (loss.max_weight, loss.mean_weight, loss.affinity_weight, loss.warm_up_steps) == (1.0, 0.1, 1.0, 1000)
    assert head.loss_cls.loss_weight == 1.0
    assert config.model.backbone.frozen_stages == -1
    optimizer = config.optim_wrapper.optimizer
    assert (optimizer.type, optimizer.lr, optimizer.momentum) == ("SGD", 0.001 * 96 / 16, 0.9)
    assert config.train_cfg.total_batch == 96


@pytest.mark.parametrize("name", WITHOUT_MASKS)
def test_what_needs_masks_refuses_models_without(name: str) -> None:
    config = finetuning_config(name, "ctw1500")
    with pytest.raises(UserError, match=rf"^{config.model.type}: finds boxes alone, and this needs masks; `make eval"):
        Predictor(config, "any.pth")
