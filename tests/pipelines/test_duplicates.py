"""`make duplicates`: what it prints, writes and refuses."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stage1_proposals.generators.registry import build_generator
from stage1_proposals.images.listing import list_images
from stage1_proposals.jobs.request import Job, JobSettings, Recipe
from stage1_proposals.jobs.run import run as run_job
from stage1_proposals.shards import ShardSet
from tests.pipelines.command import run_command


def run(*argv: object) -> int:
    return run_command("duplicates", *argv)


@pytest.fixture
def shards(write_shards: Callable[..., ShardSet], make_record: Callable, rectangles: Callable) -> ShardSet:
    """Images 0 to 25 and then 0 to 23 again, and one without proposals, in two shards."""
    rng = np.random.default_rng(0)
    masks = rectangles([(2 * m, 0, 2 * m + 9, 8) for m in range(4)], 24, 32)
    features = list(rng.standard_normal((26, 4, 16)))
    records = [make_record(n, f"{n:02d}.png", masks, each) for n, each in enumerate(features + features[:24])]
    records.append(make_record(99, "99.png", masks[:0], np.zeros((0, 16))))
    return write_shards([records[:30], records[30:]], {"feature_dim": 16}, images=False)


def test_groups_are_printed_and_written(shards: ShardSet, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--shards", shards.directory, "--threshold", 0.99) == 0
    out = capsys.readouterr().out
    path = shards.directory / "duplicates.json"
    assert f"24 groups of near-duplicates with 48 of 51 images: {path}\n  00.png, 26.png\n  01.png, 27.png\n" in out
    assert "... and 4 more" in out
    assert "1 images without proposals were not compared" in out
    groups = [[f"{n:02d}.png", f"{n + 26:02d}.png"] for n in range(24)]
    assert json.loads(path.read_text()) == {
        "threshold": 0.99,
        "groups": groups,
        "pairs": [[*group, 1.0] for group in groups],
    }


def test_an_image_smaller_and_compressed_is_found_among_others(
    image_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "images").mkdir()
    for path in sorted(image_folder.rglob("*.png")):
        Image.open(path).resize((320, 320)).save(tmp_path / "images" / path.name)
    Image.open(tmp_path / "images" / "0004.png").resize((256, 256)).save(tmp_path / "images" / "copy.jpg", quality=60)
    settings = JobSettings(images_per_shard=5, short_side=320, long_side=320)
    recipe = Recipe(build_generator({}), "lite0_imagenet", None, "cpu", settings=settings)
    job = Job(list_images(tmp_path / "images"), recipe)
    run_job(job, tmp_path / "shards", 0, lambda _: None)
    assert run("--shards", tmp_path / "shards", "--out", tmp_path / "out.json") == 0
    assert json.loads((tmp_path / "out.json").read_text())["groups"] == [["0004.png", "copy.jpg"]]


@pytest.mark.parametrize("threshold", [0, 0.49, 1.01, "nan"])
def test_a_threshold_that_makes_no_sense_is_refused(
    shards: ShardSet, capsys: pytest.CaptureFixture[str], threshold: object
) -> None:
    assert run("--shards", shards.directory, "--threshold", threshold) == 2
    assert capsys.readouterr().err == f"error: --threshold {float(str(threshold))}: use 0.5 to 1\n"


def test_a_directory_without_shards_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--shards", tmp_path) == 2
    assert "no shard set here" in capsys.readouterr().err
