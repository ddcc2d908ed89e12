import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from mmdet.models.detectors import BaseDetector
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.registry import DefaultScope
from mmengine.utils import import_modules_from_strings

from stage2_training.config.compose import set_num_classes
from stage2_training.runs.initial_weights import detector_traits

CONFIGS = Path(__file__).parents[2] / "configs" / "models"
PRETRAINING = CONFIGS.parent / "pretraining"
MODELS_OF_KNET = ("knet", "knet_lite0")
ALL = sorted(file.stem for file in CONFIGS.glob("*.py"))
SMALL = [name for name in ALL if name.endswith("_lite0")]
WITH_QUERIES = [name for name in ALL if not name.startswith(("mask_rcnn", "solov2"))]
OF_FREESOLO = [name for name in ALL if name.startswith("solov2")]
WITH_VARIANT = [*WITH_QUERIES, *OF_FREESOLO]  # of pre-training


def build(name: str, classes: int = 80) -> BaseDetector:
    return build_model(Config.fromfile(CONFIGS / f"{name}.py"), classes)


def build_model(config: Config, classes: int = 80) -> BaseDetector:
    import_modules_from_strings(Config.fromfile(CONFIGS.parent / "runtime.py").custom_imports.imports)
    set_num_classes(config.model, classes)
    with DefaultScope.overwrite_default_scope("mmdet"):
        return MODELS.build(config.model)


def test_published_knet_checkpoints_fit() -> None:
    """Names and shapes of the official R50 checkpoint, but for the backbone, whose names are MMDetection's own."""
    lines = (Path(__file__).parent / "knet_checkpoint_keys.txt").read_text().splitlines()
    expected = {}
    for line in lines:
        name, shape = re.fullmatch(r"(\S+) \((.*)\)", line).groups()
        expected[name] = tuple(int(size) for size in shape.split(",") if size.strip())
    state = build("knet").state_dict()
    backbone = {name for name in state if name.startswith("backbone.")}
    assert {name: tuple(state[name].shape) for name in state.keys() - backbone} == expected
    assert state["backbone.layer4.2.conv3.weight"].shape == (2048, 512, 1, 1)


def test_every_model_comes_in_both_sizes() -> None:
    assert {name.removesuffix("_lite0") for name in SMALL} == set(ALL) - set(SMALL)


def with_prompts(name: str) -> Config:
    config = Config.fromfile(PRETRAINING / f"{name}.py")
    config.model.saliency_prompt.feature_dim = 8
    return config


def without_prompts(name: str) -> Config:
    config = Config.fromfile(CONFIGS / f"{name}.py")
    config.merge_from_dict(Config.fromfile(PRETRAINING / "parts" / "frozen_backbone.py"))
    return config


def test_every_model_but_mask_rcnn_has_a_variant_for_pretraining() -> None:
    assert {file.stem for file in PRETRAINING.glob("*.py")} == set(WITH_VARIANT)


@pytest.mark.parametrize("name", WITH_QUERIES)
def test_a_variant_with_prompts_is_the_plain_model_otherwise(name: str) -> None:
    variant, plain = with_prompts(name).model, Config.fromfile(CONFIGS / f"{name}.py").model
    assert variant.pop("saliency_prompt").feature_dim == 8
    assert variant.pop("type") == f"SaliencyPrompt{plain.pop('type')}"
    assert (variant.backbone.pop("frozen_stages"), plain.backbone.pop("frozen_stages")) == (4, 1)
    assert variant == plain


@pytest.mark.parametrize("name", OF_FREESOLO)
def test_freesolo_is_solov2_with_other_losses(name: str) -> None:
    variant, plain = with_prompts(name).model, Config.fromfile(CONFIGS / f"{name}.py").model
    assert variant.pop("saliency_prompt").feature_dim == 8
    assert (variant.pop("type"), plain.pop("type")) == ("SaliencyPromptSOLOv2", "SOLOv2")
    frozen = 4 if name in SMALL else -1
    assert (variant.backbone.pop("frozen_stages"), plain.backbone.pop("frozen_stages")) == (frozen, 1)
    assert (variant.mask_head.pop("type"), plain.mask_head.pop("type")) == ("WeakSOLOV2Head", "SOLOV2Head")
    assert variant.mask_head.pop("loss_mask").type == "WeakMaskLoss"
    del plain.mask_head.loss_mask
    assert variant == plain


def test_freesolo_trains_all_but_the_statistics_of_the_backbone() -> None:
    model = build_model(with_prompts("solov2")).train()
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert not any(module.training for module in model.backbone.modules() if isinstance(module, torch.nn.BatchNorm2d))


@pytest.mark.parametrize(
    ("config", "name"),
    [*((without_prompts, name) for name in SMALL), *((with_prompts, name) for name in SMALL if name in WITH_VARIANT)],
)
def test_pretraining_freezes_the_backbone_and_nothing_else(config: Callable[[str], Config], name: str) -> None:
    model = build_model(config(name)).train()
    for parameter_name, parameter in model.named_parameters():
        assert parameter.requires_grad != parameter_name.startswith("backbone."), parameter_name
    norms = [module for module in model.backbone.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    assert norms
    assert not any(norm.training for norm in norms)


@pytest.mark.parametrize("name", ALL)
def test_images_are_normalised_as_rgb(name: str) -> None:
    with DefaultScope.overwrite_default_scope("mmdet"):
        preprocessor = MODELS.build(Config.fromfile(CONFIGS / f"{name}.py").model.data_preprocessor)
    assert preprocessor.pad_mask
    assert not preprocessor._channel_conversion
    red = torch.zeros(3, 32, 32)
    red[0] = 255
    batch = preprocessor({"inputs": [red], "data_samples": None})["inputs"][0, :, 0, 0]
    expected = (torch.tensor([255.0, 0, 0]) - preprocessor.mean.flatten()) / preprocessor.std.flatten()
    torch.testing.assert_close(batch, expected)


@pytest.mark.parametrize(("name", "stride"), zip(MODELS_OF_KNET, (8, 4), strict=True))
def test_forward(name: str, stride: int) -> None:
    model = build(name).eval()
    with torch.no_grad():
        cls_logits, mask_logits = model(torch.randn(1, 3, 64, 96), mode="tensor")
    kernels = model.rpn_head.initial_kernels.shape[0]
    assert cls_logits.shape == (1, kernels, 80)
    assert mask_logits.shape == (1, kernels, 64 // stride, 96 // stride)


@pytest.mark.parametrize("name", SMALL)
def test_only_class_branches_follow_the_classes(name: str) -> None:
    """What is essential fits a model of other classes, but for its class branches."""
    one, three = (build(name, classes=classes) for classes in (1, 3))
    shapes = {key: value.shape for key, value in three.state_dict().items()}
    following = {key for key, value in one.state_dict().items() if value.shape != shapes[key]}
    assert following
    traits = detector_traits(type(one).__name__)
    assert following == {key for key in shapes if traits.class_branch.search(key)}
    for part in traits.pretrained_parts:
        assert any(key.startswith(part) for key in shapes), part
    heads = {key for key in shapes if key.startswith(traits.pretrained_parts)} - following
    assert len(heads) > 20


@pytest.mark.parametrize("name", [name for name in ALL if name not in (*SMALL, "knet")])
def test_the_papers_size_builds(name: str) -> None:
    with torch.device("meta"):
        model = build(name)
    queries = {"queryinst": "rpn_head.init_proposal_features.weight", "mask2former": "panoptic_head.query_feat.weight"}
    queries["maskformer"] = "panoptic_head.query_embed.weight"
    if name in queries:
        assert model.state_dict()[queries[name]].shape == (100, 256)
