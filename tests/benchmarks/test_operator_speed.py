"""The benchmark of MMCV's operators takes steps with either, and needs both."""

from importlib import import_module
from types import SimpleNamespace
from typing import Any

import pytest

from stage2_training.models import mmcv_operators
from tests.benchmarks import operator_speed
from tests.pipelines.command import run_command


def test_both_sides_take_the_same_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the same operators on both sides, the weights stay the same; each side calls its own."""
    calls: list[str] = []

    def recording(name: str) -> Any:
        def roi_align_forward(*args: Any, **kwargs: Any) -> None:
            calls.append(name)
            mmcv_operators.roi_align_forward(*args, **kwargs)

        return SimpleNamespace(**{**vars(mmcv_operators), "roi_align_forward": roi_align_forward})

    monkeypatch.setattr(operator_speed, "SIZES", {"cpu": (1, (96, 64))})
    monkeypatch.setattr(operator_speed, "mmcv_operators", recording("PyTorch"))
    for name in operator_speed.USERS:  # put back afterwards
        module = import_module(f"mmcv.ops.{name}")
        monkeypatch.setattr(module, "ext_module", module.ext_module)
    values = operator_speed.compare_operators("mask_rcnn_lite0", "cpu", recording("compiled"), rounds=1)
    assert values["relative difference of the weights afterwards"] == "0.0e+00"
    assert calls.count("PyTorch") == calls.count("compiled") > 0


def test_without_compiled_operators_there_is_nothing_to_compare(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(operator_speed, "import_module", lambda name: mmcv_operators)
    assert run_command("bench", "operators") == 2
    assert "run `make setup OPS=compiled` first" in capsys.readouterr().err
