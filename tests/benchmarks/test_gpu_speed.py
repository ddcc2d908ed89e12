"""The benchmark of a GPU, dry-run on the CPU at a small size, writes all of its tables."""

from pathlib import Path

import pytest

from tests.pipelines.command import run_command


def test_the_tables(image_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.benchmarks.gpu_speed.COMPARED", 2)
    # Each process would import everything once more.
    monkeypatch.setattr("tests.benchmarks.gpu_speed.in_process", lambda function, *args: function(*args))
    images = tmp_path / "images"
    images.mkdir()
    for path in list(image_folder.rglob("*.png"))[:2]:
        (images / path.name).symlink_to(path)
    models = ["knet_lite0", "mask2former_lite0", "queryinst_lite0"]
    out = tmp_path / "gpu.md"
    stage1 = ["--images", str(images), "--backbone", "lite0_imagenet", "--short-side", "96", "--count", "8"]
    training = [word for model in models for word in ("--model", model)]
    training += ["--batch-size", "1", "--size", "64", "64", "--repeat", "1"]
    options = [*stage1, "--workers", "0", *training, "--device", "cpu", "--out", str(out)]
    assert run_command("bench", "gpu", *options) == 0
    machine, stage1_table, training_table = out.read_text().strip().split("\n\n")
    assert "torch" in machine
    assert "CUDA" in machine
    rows = [line.strip("| ").split(" | ") for line in stage1_table.splitlines()[2:]]
    assert [row[0] for row in rows][:3] == ["forward pass alone", "end to end, `saliency`", "end to end, `merging`"]
    assert all(float(row[1].split()[0]) > 0 and row[2] == "-" for row in rows)
    assert [row[1] for row in rows[3:]] == ["1.0000"] * 2  # with itself
    rows = [line.strip("| ").split(" | ") for line in training_table.splitlines()[2:]]
    variants = [
        f"`{model}`{variant}" for model in models for variant in ("", ", --amp", ", prompts", ", prompts, --amp")
    ]
    assert [row[0] for row in rows] == variants
    assert all(int(row[1].removesuffix(" ms")) > 0 and row[2] == "-" for row in rows)
