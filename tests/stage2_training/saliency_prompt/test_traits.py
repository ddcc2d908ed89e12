"""What each model declares of itself agrees with the model."""

from collections.abc import Callable
from copy import deepcopy
from pathlib import Path

import pytest
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.registry import DefaultScope

import stage2_training.models.timm_backbone  # noqa: F401 (registers TimmBackbone)
from stage2_training.config.compose import set_num_classes
from stage2_training.saliency_prompt.detectors import detector_traits

FRAGMENTS = Path(__file__).parents[3] / "configs" / "models"
NAMES = [path.stem for path in sorted(FRAGMENTS.glob("*_lite0.py"))]
WITHOUT_QUERIES = {"mask_rcnn_lite0", "solov2_lite0"}
WITHOUT_MASKS = {"detr_lite0", "deformable_detr_lite0"}


@pytest.fixture
def shapes() -> Callable[[str, int], dict[str, tuple[int, ...]]]:
    """(name of a fragment, number of classes) -> the shapes of the detector's tensors by name."""

    def build(name: str, classes: int) -> dict[str, tuple[int, ...]]:
        config = Config.fromfile(FRAGMENTS / f"{name}.py").model
        set_num_classes(config, classes)
        with DefaultScope.overwrite_default_scope("mmdet"):
            return {key: tuple(value.shape) for key, value in MODELS.build(config).state_dict().items()}

    return build


@pytest.mark.parametrize("name", NAMES)
def test_the_class_branch_is_what_follows_the_number_of_classes(name: str, shapes: Callable) -> None:
    one, five = shapes(name, 1), shapes(name, 5)
    traits = detector_traits(Config.fromfile(FRAGMENTS / f"{name}.py").model.type)
    following = {key for key, shape in one.items() if shape != five[key]}
    assert following == {key for key in one if traits.class_branch.search(key)}
    assert following


@pytest.mark.parametrize("name", NAMES)
def test_the_query_rows_are_what_follows_the_number_of_queries(name: str) -> None:
    config = Config.fromfile(FRAGMENTS / f"{name}.py")
    traits = detector_traits(config.model.type)
    assert (traits.queries is None) == (traits.query_rows is None) == (name in WITHOUT_QUERIES)
    rows = []
    for queries in (5, 7):
        if traits.queries is not None:
            config.merge_from_dict({f"model.{traits.queries}": queries})
        with DefaultScope.overwrite_default_scope("mmdet"):
            model = MODELS.build(deepcopy(config.model))
        rows.append({key: value.shape for key, value in model.state_dict().items()})
    following = {key for key, shape in rows[0].items() if shape != rows[1][key]}
    assert following == {key for key in rows[0] if traits.query_rows and traits.query_rows.search(key)}


@pytest.mark.parametrize("name", NAMES)
def test_pretrained_parts_are_parts_of_the_model(name: str, shapes: Callable) -> None:
    detector = Config.fromfile(FRAGMENTS / f"{name}.py").model.type
    traits = detector_traits(detector)
    tensors = shapes(name, 1)
    assert traits.pretrained_parts
    for part in traits.pretrained_parts:
        assert any(key.startswith(part) for key in tensors), part
    assert (traits.query_masks is None) == (name in WITHOUT_QUERIES | WITHOUT_MASKS)
    assert traits.masks == (name not in WITHOUT_MASKS)
    if name != "mask_rcnn_lite0":
        assert detector_traits(f"SaliencyPrompt{detector}") is traits
        assert f"SaliencyPrompt{detector}" in MODELS


def test_a_detector_without_a_declaration_needs_nothing_of_pretraining() -> None:
    traits = detector_traits("CascadeRCNN")
    assert traits.pretrained_parts == ()
    assert traits.query_masks is None
    assert traits.class_branch.search("roi_head.bbox_head.0.fc_cls.weight")
    assert not traits.class_branch.search("roi_head.bbox_head.0.fc_reg.weight")
