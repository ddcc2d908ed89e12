"""The training benchmark's sides are what their names say."""

from pathlib import Path

import pytest
import torch

from pipelines import cli
from pipelines.bench import build_parser, main
from pipelines.benchmarks.training_sides import (
    PORT,
    PROMPTED,
    VANILLA,
    Setting,
    Step,
    disagreement,
    measure_in_turn,
    ratio,
    synthetic_batch,
    variants,
)
from stage1_proposals.common.errors import UserError

TINY = """
model = dict(
    type="SaliencyPromptKNet",
    data_preprocessor=dict(type="DetDataPreprocessor", pad_mask=True, pad_size_divisor=32),
    backbone=dict(type="ResNet", depth=18, base_channels=8, norm_eval=True, frozen_stages=4),
    neck=dict(type="FPN", in_channels=[8, 16, 32, 64], out_channels=32, num_outs=4),
    rpn_head=dict(type="KernelHead", num_kernels=6, num_classes=3, channels=32),
    roi_head=dict(type="KernelIterHead", num_classes=3, num_stages=2, channels=32, num_heads=4, ffn_channels=32),
    saliency_prompt=dict(rescale=True),
)
"""


@pytest.fixture
def setting(tmp_path: Path) -> Setting:
    (tmp_path / "tiny.py").write_text(TINY)
    return Setting(str(tmp_path / "tiny.py"), 2, 2, (90, 60), 3, "cpu", "float32")


def test_every_variant_takes_a_step(setting: Setting) -> None:
    sides = variants(setting)
    batch = synthetic_batch(setting, 64)
    for name, config in sides.items():
        step = Step(config, batch, setting)
        before = step.model.rpn_head.init_kernels.weight.clone()
        supervised = "s0.loss_kernel" in step.losses()
        assert supervised == (name not in (PORT, VANILLA)), name
        step()
        assert not torch.equal(step.model.rpn_head.init_kernels.weight, before), name
        assert not any(p.requires_grad for p in step.model.backbone.parameters())


def test_the_parts_switched_off_are_named(setting: Setting) -> None:
    sides = variants(setting)
    assert list(sides)[:3] == [PORT, VANILLA, PROMPTED]
    assert sides[PROMPTED]["saliency_prompt"] == {"feature_dim": 64, "rescale": True}
    assert sides[f"{PROMPTED}, matching=none, kernel_loss_weight=0.0"]["saliency_prompt"] == {
        "feature_dim": 64,
        "rescale": True,
        "matching": "none",
        "kernel_loss_weight": 0.0,
    }
    assert all(side["rpn_head"]["num_classes"] == 2 for side in sides.values())


def test_the_batch_is_like_pseudo_labels(setting: Setting) -> None:
    batch = synthetic_batch(setting, 5)
    assert [image.shape for image in batch["inputs"]] == [(3, 60, 90)] * 2
    for sample in batch["data_samples"]:
        instances = sample.gt_instances
        assert instances.masks.masks.shape == (3, 60, 90)
        assert (instances.masks.areas > 0).all()
        assert instances.seed_features.shape == (3, 5)
        assert (instances.bboxes[:, 2:] > instances.bboxes[:, :2]).all()


def test_both_sides_find_the_same_losses(setting: Setting) -> None:
    assert disagreement(setting) < 1e-4


def test_every_round_calls_every_side(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    times = iter(range(100))
    monkeypatch.setattr("pipelines.benchmarks.training_sides.time.perf_counter", lambda: next(times))
    seconds = measure_in_turn({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, "cpu", rounds=2)
    assert calls == ["a", "b"] * 3
    assert seconds == {"a": [1, 1], "b": [1, 1]}


def test_a_ratio_is_that_of_the_middle_round() -> None:
    assert ratio([2, 9, 30], [1, 3, 5]) == 3


def test_another_model_is_a_user_error(setting: Setting, tmp_path: Path) -> None:
    path = tmp_path / "other.py"
    path.write_text(TINY.replace('"KNet"', '"SOLOv2"'))
    with pytest.raises(UserError, match="is a SOLOv2"):
        variants(Setting(str(path), 1, 1, (64, 64), 1, "cpu", "float32"))


def test_a_model_without_a_neck_is_one_as_well() -> None:
    with pytest.raises(UserError, match="mask2former_lite0: is a Mask2Former"):
        variants(Setting("mask2former_lite0", 1, 1, (64, 64), 1, "cpu", "float32"))


def test_the_command_prints_times_memory_and_ratios(
    setting: Setting, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("pipelines.benchmarks.training_sides.PARTS", ())
    options = ["--model", setting.model, "--batch-size", "1", "--size", "64", "64", "--instances", "2", "--repeat", "1"]
    assert cli.run(main, build_parser(), ["training", *options, "--device", "cpu"]) == 0
    printed = capsys.readouterr().out
    rows = {
        line.rsplit(maxsplit=4)[0].strip(): line.rsplit(maxsplit=4)[1:] for line in printed.splitlines() if "." in line
    }
    assert rows[VANILLA][1] == rows[VANILLA][3] == "1.000"
    assert float(rows[PORT][1]) > 0
    assert float(rows[PROMPTED][3]) >= 1
    assert "plain port / vanilla, loss side alone" in printed
