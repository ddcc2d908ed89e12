"""`bench`: the benchmarks, and what they refuse."""

import re
from pathlib import Path

import pytest

from tests.pipelines.command import run_command


def test_a_benchmark_that_does_not_exist_is_one_line_and_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command("bench", "gossip") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "No such command 'gossip'" in line


def test_images_that_do_not_exist_are_one_line_and_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command("bench", "proposals", "--images", "gone") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "gone: no such folder" in line


def test_without_a_checkout_there_is_nothing_to_compare_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("pipelines.bench.find_spec", lambda name: None)
    monkeypatch.chdir(tmp_path)
    for name in ("training", "streaming"):
        assert run_command("bench", name) == 2
        assert capsys.readouterr().err == (
            "error: tests/benchmarks: not found; run `bench` in the root of a checkout of the project\n"
        )


def test_prediction_is_measured_beside_its_network(run_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command("bench", "prediction", "--work-dir", run_dir, "--count", 2, "--repeat", 1) == 0
    lines = dict(re.split(" {2,}", line) for line in capsys.readouterr().out.splitlines() if "  " in line)
    assert lines["setting"].startswith("KNet, 2 images, one at a time")
    assert float(lines["images per second, predict / the network alone"]) > 0
    assert float(lines["PyTorch / ONNX Runtime"]) > 0
    assert "; 100.0 % within 1e-3" in lines["scores, ONNX Runtime against PyTorch"]
    (overlap,) = (value for name, value in lines.items() if name.startswith("masks"))
    assert float(overlap.removeprefix("mean IoU ")) > 0.99
