"""The official network's numbers, for weights and inputs that are drawn from seeds.

`reference.json` holds its losses, and of each of its outputs every `step`-th entry and two sums.
"""

import json
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from stage2_training.knet import KernelHead, KernelIterHead
from stage2_training.knet.assignment import CostWeights, InstanceTargets
from stage2_training.knet.losses import LossWeights, knet_losses

REFERENCE = json.loads((Path(__file__).parent / "reference.json").read_text())


def load_seeded_weights(module: torch.nn.Module, prefix: str) -> None:
    """Every entry from its name; scales of norms around 1."""
    state = {}
    for name, tensor in module.state_dict().items():
        seed = zlib.crc32(f"{prefix}.{name}".encode())
        value = np.random.RandomState(seed).standard_normal(tuple(tensor.shape)).astype(np.float32) * np.float32(0.05)
        if value.ndim == 1 and name.endswith(".weight"):
            value += 1
        state[name] = torch.from_numpy(value)
    module.load_state_dict(state)


def seeded_targets() -> InstanceTargets:
    rng = np.random.RandomState(7)
    masks, labels = torch.zeros(2, 3, 32, 32), torch.zeros(2, 3, dtype=torch.long)
    for image in range(2):
        for mask in masks[image]:
            y, x = rng.randint(0, 18, 2)
            mask[y : y + 12, x : x + 12] = 1
        labels[image] = torch.from_numpy(rng.randint(0, 3, 3))
    return InstanceTargets(masks, labels, [3, 3])


@pytest.fixture(scope="module")
def results() -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """Outputs and losses of our network."""
    rpn_head = KernelHead(num_kernels=10, num_classes=3, channels=64)
    roi_head = KernelIterHead(num_classes=3, num_stages=3, channels=64, num_heads=8, ffn_channels=128)
    load_seeded_weights(rpn_head, "rpn_head")
    load_seeded_weights(roi_head, "roi_head")
    feats = [
        torch.from_numpy(np.random.RandomState(100 + i).standard_normal((2, 64, 32 >> i, 32 >> i)).astype(np.float32))
        for i in range(4)
    ]
    with torch.no_grad():
        initial = rpn_head(feats)
        stages = roi_head(initial.features, initial.kernels, initial.mask_logits)
        losses, _ = knet_losses(initial, stages, seeded_targets(), CostWeights(), LossWeights())
    outputs = {
        "init_kernels_out": initial.kernels,
        "x_feats": initial.features,
        "init_mask_preds": initial.mask_logits,
        "seg_preds": initial.seg_logits,
    }
    for i, stage in enumerate(stages):
        outputs[f"stage{i}_cls_score"] = stage.cls_logits
        outputs[f"stage{i}_mask_preds"] = stage.mask_logits
        outputs[f"stage{i}_kernels"] = stage.kernels
    return outputs, losses


@pytest.mark.parametrize("name", REFERENCE["arrays"])
def test_output(name: str, results: tuple[dict[str, Any], dict[str, Any]]) -> None:
    actual, expected = results[0][name], REFERENCE["arrays"][name]
    assert list(actual.shape) == expected["shape"]
    flat = actual.double().flatten()
    scale = np.abs(expected["values"]).max()
    np.testing.assert_allclose(flat[:: expected["step"]], expected["values"], rtol=1e-4, atol=1e-5 * scale)
    assert flat.abs().sum().item() == pytest.approx(expected["abs_sum"], rel=1e-5)
    assert flat.sum().item() == pytest.approx(expected["sum"], abs=1e-5 * expected["abs_sum"])


def test_losses(results: tuple[dict[str, Any], dict[str, Any]]) -> None:
    actual = {name: loss.item() for name, loss in results[1].items()}
    assert actual == pytest.approx(REFERENCE["losses"], rel=1e-4)
