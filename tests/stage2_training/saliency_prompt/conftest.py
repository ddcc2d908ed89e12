"""MMDetection's own query-based detectors, as configs/models/ has them for two cores, smaller still."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from mmdet.models.detectors import BaseDetector
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.registry import DefaultScope

import stage2_training.mended_parts
import stage2_training.saliency_prompt  # noqa: F401 (both register what the configs name)
from stage2_training.compose import set_num_classes

FRAGMENTS = Path(__file__).parents[3] / "configs" / "models"
CLASSES, QUERIES, SEED_DIM = 3, 6, 5
CHANNELS = [8, 16, 32, 64]


def _shrink(node: Any) -> None:
    """Set the sizes that make a detector small, however deep, in place."""
    small = {"num_queries": QUERIES, "num_proposals": QUERIES, "max_per_img": QUERIES, "max_per_image": QUERIES}
    if isinstance(node, dict):
        node.update({key: value for key, value in small.items() if key in node})
        if node.get("in_channels") == [24, 40, 112, 320]:
            node["in_channels"] = CHANNELS
        for value in node.values():
            _shrink(value)
    elif isinstance(node, list):
        for value in node:
            _shrink(value)


@pytest.fixture
def build_adapted() -> Callable[..., BaseDetector]:
    """(fragment, settings or None) -> a small detector in training mode, with prompts or vanilla."""

    def build(name: str, settings: dict[str, Any] | None = None) -> BaseDetector:
        model = Config.fromfile(FRAGMENTS / f"{name}_lite0.py").model
        _shrink(model)
        set_num_classes(model, CLASSES)
        model.backbone = {"type": "ResNet", "depth": 18, "base_channels": 8, "norm_eval": True}
        if settings is not None:
            model.type = f"SaliencyPrompt{model.type}"
            model.saliency_prompt = {"feature_dim": SEED_DIM} | settings
        torch.manual_seed(0)
        with DefaultScope.overwrite_default_scope("mmdet"):
            detector = MODELS.build(model)
        detector.init_weights()
        return detector.train()

    return build
