"""Every model fragment, composed as the commands do it, trains and predicts."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import DefaultScope

import stage2_training.mended_parts
import stage2_training.timm_backbone  # noqa: F401 (both register what the configs name)
from stage1_proposals.shards import ShardSet
from stage2_training.compose import CONFIGS, finetuning_config, pretraining_config
from stage2_training.evaluation import MaskAP

ALL = sorted(file.stem for file in (CONFIGS / "models").glob("*.py"))
SMALL = [name for name in ALL if name.endswith("_lite0") and name != "knet_lite0"]
WITHOUT_QUERIES = ("mask_rcnn", "solov2")


@pytest.fixture
def shards(write_shards: Callable, make_record: Callable, rectangles: Callable) -> ShardSet:
    record = make_record(1, "1.png", rectangles([(0, 0, 8, 8)], 16, 16), [[1, 2, 3, 4, 5]])
    return write_shards([[record]], {"feature_dim": 5}, photos=False)


def pretraining(name: str, shards: ShardSet) -> Config:
    return pretraining_config(name, "pretrain_demo", shards, prompts=not name.startswith(WITHOUT_QUERIES))


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


@pytest.mark.parametrize("name", SMALL)
def test_a_step_of_pretraining(name: str, shards: ShardSet, make_batch: Callable) -> None:
    config = pretraining(name, shards)
    model = built(config)
    images, samples = make_batch([3, 2])
    for sample in samples:
        sample.gt_instances.labels.zero_()
    frozen = {key: value.clone() for key, value in model.backbone.state_dict().items()}
    head = {key: value.clone() for key, value in model.named_parameters() if value.requires_grad}
    data = {"inputs": [(image.sigmoid() * 255).byte() for image in images], "data_samples": samples}
    losses = model.train_step(data, build_optim_wrapper(model, config.optim_wrapper))
    assert losses["loss"].isfinite()
    assert ("s0.loss_kernel" in losses) != name.startswith(WITHOUT_QUERIES)
    assert all(torch.equal(value, frozen[key]) for key, value in model.backbone.state_dict().items())
    assert any(not torch.equal(value, head[key]) for key, value in model.named_parameters() if key in head)


@pytest.mark.parametrize("name", SMALL)
def test_fine_tuning_predicts_what_the_metric_reads(name: str, make_batch: Callable, tmp_path: Path) -> None:
    model = built(finetuning_config(name, "ctw1500"))
    images, samples = make_batch([2, 0])
    for number, sample in enumerate(samples):
        sample.gt_instances.labels.zero_()
        sample.set_metainfo({"img_id": number})
    losses = model(images, samples, mode="loss")
    assert model.parse_losses(losses)[0].isfinite()
    with torch.no_grad():
        found = model.eval()(images, samples, mode="predict")
    objects = [{"id": 1, "image_id": 0, "category_id": 1, "bbox": [0, 0, 9, 9], "area": 81, "iscrowd": 0}]
    objects[0]["segmentation"] = [[0, 0, 9, 0, 9, 9, 0, 9]]
    photos = [{"id": number, "width": 180, "height": 120} for number in range(2)]
    labels = {"images": photos, "annotations": objects, "categories": [{"id": 1, "name": "text"}]}
    (tmp_path / "labels.json").write_text(json.dumps(labels))
    metric = MaskAP(str(tmp_path / "labels.json"))
    metric.dataset_meta = {"classes": ("text",)}
    metric.process(None, [sample.to_dict() for sample in found])
    assert 0 <= metric.evaluate(2)["coco/AP"] <= 1
