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
from stage1_proposals.common.masks import encode_masks, mask_areas, mask_fields
from stage1_proposals.shards import ShardSet
from stage2_training.config.compose import CONFIGS, finetuning_config, pretraining_config
from stage2_training.config.overrides import Overrides
from stage2_training.evaluation.coco_metric import MaskAP

ALL = sorted(file.stem for file in (CONFIGS / "models").glob("*.py"))
SMALL = [name for name in ALL if name.endswith("_lite0") and name != "knet_lite0"]
WITHOUT_QUERIES = ("mask_rcnn", "solov2")


@pytest.fixture
def shards(write_shards: Callable, make_record: Callable, rectangles: Callable) -> ShardSet:
    """Two images with three masks and one."""
    rng = np.random.default_rng(0)
    records = []
    for number, count in enumerate((3, 1)):
        masks = rectangles([(20 * m, 10, 20 * m + 30, 60 + 20 * m) for m in range(count)], 90, 120)
        records.append(make_record(number, f"{number}.png", masks, rng.standard_normal((count, 5))))
    return write_shards([records], {"feature_dim": 5})


def pretraining(name: str, shards: ShardSet, **overrides: Any) -> Config:
    prompts = not name.startswith(WITHOUT_QUERIES)
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
    assert (prompted.type == plain.type) == name.startswith(WITHOUT_QUERIES)
    assert prompted.backbone.frozen_stages == 4
    assert plain.backbone.frozen_stages == 1


@pytest.mark.parametrize("amp", [False, True])
@pytest.mark.parametrize("name", SMALL)
def test_a_step_of_pretraining(name: str, amp: bool, shards: ShardSet) -> None:
    """On samples that the pipeline makes of shards."""
    config = pretraining(name, shards, amp=amp, image_size=128)
    model = built(config)
    with DefaultScope.overwrite_default_scope("mmdet"):
        dataset = DATASETS.build(config.train_dataloader.dataset)
        data = pseudo_collate([dataset[0], dataset[1]])
        wrapper = build_optim_wrapper(model, config.optim_wrapper)
    frozen = {key: value.clone() for key, value in model.backbone.state_dict().items()}
    head = {key: value.clone() for key, value in model.named_parameters() if value.requires_grad}
    losses = model.train_step(data, wrapper)
    assert losses["loss"].isfinite()
    assert ("s0.loss_kernel" in losses) != name.startswith(WITHOUT_QUERIES)
    assert all(torch.equal(value, frozen[key]) for key, value in model.backbone.state_dict().items())
    assert any(not torch.equal(value, head[key]) for key, value in model.named_parameters() if key in head)


@pytest.mark.parametrize("name", SMALL)
def test_the_metric_scores_what_a_fine_tuned_model_predicts(name: str, make_batch: Callable, tmp_path: Path) -> None:
    """One of its masks is the labelled object, so AP must be above 0."""
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
    masks = encode_masks(predicted[0].pred_instances.masks.numpy())
    labelled = next(mask for mask, area in zip(masks, mask_areas(masks), strict=True) if area)
    objects = [{"id": 1, "image_id": 0, "category_id": 1, "iscrowd": 0, **mask_fields(labelled)}]
    entries = [{"id": number, "file_name": f"{number}.jpg", "width": 180, "height": 120} for number in range(2)]
    labels = {"images": entries, "annotations": objects, "categories": [{"id": 1, "name": "text"}]}
    (tmp_path / "labels.json").write_text(json.dumps(labels))
    metric = MaskAP(str(tmp_path / "labels.json"))
    metric.dataset_meta = {"classes": ("text",)}
    metric.process(None, [sample.to_dict() for sample in predicted])
    assert 0 < metric.evaluate(2)["coco/AP"] <= 1
