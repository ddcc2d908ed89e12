"""The variants of the training benchmark are what their names say, and the references read the same."""

from pathlib import Path

import pytest
import torch

from stage1_proposals.common.errors import UserError
from tests.benchmarks.training_speed import (
    PROMPTED,
    REFERENCE,
    VANILLA,
    Setting,
    Step,
    compare_steps,
    measure_in_turn,
    ratio,
    synthetic_batch,
    variants,
)
from tests.pipelines.command import run_command

TINY = """
model = dict(
    type="SaliencyPromptKNet",
    saliency_prompt=dict(rescale=True),
    data_preprocessor=dict(type="DetDataPreprocessor", pad_mask=True, pad_size_divisor=32),
    backbone=dict(type="ResNet", depth=18, base_channels=8, norm_eval=True, frozen_stages=4),
    neck=dict(type="FPN", in_channels=[8, 16, 32, 64], out_channels=32, num_outs=4),
    rpn_head=dict(type="KernelHead", num_kernels=6, num_classes=3, channels=32),
    roi_head=dict(type="KernelIterHead", num_classes=3, num_stages=2, channels=32, num_heads=4, ffn_channels=32),
)
"""


@pytest.fixture
def setting(tmp_path: Path) -> Setting:
    (tmp_path / "tiny.py").write_text(TINY)
    return Setting(str(tmp_path / "tiny.py"), 2, (90, 60), "cpu")


def test_every_variant_takes_a_step(setting: Setting) -> None:
    sides = variants(setting)
    batch = synthetic_batch(setting, 64)
    for name, config in sides.items():
        step = Step(config, batch, setting)
        before = step.model.rpn_head.init_kernels.weight.clone()
        supervised = "s0.loss_kernel" in step.losses()
        assert supervised == (name not in (REFERENCE, VANILLA)), name
        step()
        assert not torch.equal(step.model.rpn_head.init_kernels.weight, before), name
        assert not any(p.requires_grad for p in step.model.backbone.parameters())


def test_the_variants_are_the_reference_vanilla_and_prompted(setting: Setting) -> None:
    sides = variants(setting)
    assert list(sides) == [REFERENCE, VANILLA, PROMPTED]
    assert sides[PROMPTED]["saliency_prompt"] == {"feature_dim": 64, "rescale": True}
    assert all(side["rpn_head"]["num_classes"] == 1 for side in sides.values())


def test_the_batch_is_like_pseudo_labels(setting: Setting) -> None:
    batch = synthetic_batch(setting, 5)
    assert [image.shape for image in batch["inputs"]] == [(3, 60, 90)] * 2
    for sample in batch["data_samples"]:
        instances = sample.gt_instances
        assert instances.masks.masks.shape == (20, 60, 90)
        assert (instances.masks.areas > 0).all()
        assert instances.seed_features.shape == (20, 5)
        assert (instances.bboxes[:, 2:] > instances.bboxes[:, :2]).all()


def test_the_reference_and_ours_find_the_same_losses(setting: Setting) -> None:
    values = compare_steps(setting, 1)
    assert float(values["largest relative difference of a loss"]) < 1e-4
    assert float(values[f"{REFERENCE} / {VANILLA}"]) > 0


def test_every_round_calls_every_side(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    times = iter(range(100))
    monkeypatch.setattr("tests.benchmarks.training_speed.time.perf_counter", lambda: next(times))
    seconds = measure_in_turn({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, "cpu", rounds=2)
    assert calls == ["a", "b"] * 3
    assert seconds == {"a": [1, 1], "b": [1, 1]}


def test_a_ratio_is_that_of_the_middle_round() -> None:
    assert ratio([2, 9, 30], [1, 3, 5]) == 3


def test_another_model_is_a_user_error(setting: Setting, tmp_path: Path) -> None:
    path = tmp_path / "other.py"
    path.write_text(TINY.replace('"SaliencyPromptKNet"', '"SaliencyPromptQueryInst"'))
    with pytest.raises(UserError, match="is a SaliencyPromptQueryInst"):
        variants(Setting(str(path), 1, (64, 64), "cpu"))


def test_a_model_without_a_neck_is_one_as_well() -> None:
    with pytest.raises(UserError, match="mask2former_lite0: is a SaliencyPromptMask2Former"):
        variants(Setting("mask2former_lite0", 1, (64, 64), "cpu"))


def test_the_command_prints_times_and_ratios(setting: Setting, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--model", setting.model, "--batch-size", "1", "--size", "64", "64", "--repeat", "1"]
    assert run_command("bench", "training", *options, "--device", "cpu") == 0
    printed = capsys.readouterr().out
    for line in (f"step, {VANILLA}", f"{REFERENCE} / {VANILLA}", f"{PROMPTED} / {VANILLA}", "difference of a loss"):
        assert line in printed
