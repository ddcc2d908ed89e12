"""`make cluster`: what it prints, writes and refuses."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from stage1_proposals.generators.registry import build_generator
from stage1_proposals.images.listing import list_images
from stage1_proposals.jobs.request import Job, JobSettings, Recipe
from stage1_proposals.jobs.run import run as run_job
from stage1_proposals.shards import Manifest, ShardReader, ShardSet
from tests.pipelines.command import run_command


def run(*argv: object) -> int:
    return run_command("cluster", *argv)


@pytest.fixture
def shards(write_shards: Callable[..., ShardSet], make_record: Callable, rectangles: Callable) -> ShardSet:
    """Two shards of one image with four proposals each."""
    rng = np.random.default_rng(0)
    masks = rectangles([(2 * m, 0, 2 * m + 9, 8) for m in range(4)], 24, 32)
    records = [make_record(image, f"{image}.png", masks, rng.standard_normal((4, 4))) for image in range(2)]
    return write_shards([[record] for record in records], images=False)


def test_it_clusters_every_shard_and_says_how_to_go_on(shards: ShardSet, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--shards", shards.directory, "--classes", 3, "--seed", 5) == 0
    out = capsys.readouterr().out
    found = np.concatenate([ShardReader(path).column("proposals/cluster") for path in shards.shard_paths])
    sizes = np.bincount(found, minlength=3)
    assert f"8 proposals in 3 clusters of {sizes.min()} to {sizes.max()}, median" in out
    assert f"`make pretrain SHARDS={shards.directory} OPTS=--pseudo-classes` trains with them" in out
    assert (shards.clusters().classes, shards.clusters().seed) == (3, 5)


def test_user_errors_are_one_line_and_2(shards: ShardSet, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, message in (
        (["--shards", tmp_path / "gone"], "gone: no shard set here"),
        (["--shards", shards.directory, "--classes", 9], "9 classes: use 2 to 8, the number of proposals"),
    ):
        assert run(*arguments) == 2
        lines = [line for line in capsys.readouterr().err.replace("\r", "\n").splitlines() if "error:" in line]
        assert len(lines) == 1
        assert message in lines[0]
    assert not (tmp_path / "gone").exists()


def test_proposals_run_again_keeps_the_clusters_and_rebuilds_a_damaged_column(
    image_folder: Path, tmp_path: Path, damage_column: Callable[[Path, str], None]
) -> None:
    settings = JobSettings(images_per_shard=7, short_side=64, long_side=128)
    job = Job(list_images(image_folder), Recipe(build_generator({}), "lite0_imagenet", None, "cpu", settings=settings))
    run_job(job, tmp_path, 0, lambda _: None)
    manifest = Manifest.read(tmp_path)
    assert run("--shards", tmp_path, "--classes", 4) == 0
    before = {path: path.read_bytes() for path in tmp_path.glob("*.h5")}
    run_job(job, tmp_path, 0, lambda _: None)
    assert Manifest.read(tmp_path) == manifest
    assert {path: path.read_bytes() for path in tmp_path.glob("*.h5")} == before

    path = ShardSet.open(tmp_path).shard_paths[1]
    damage_column(path, "proposals/cluster")
    run_job(job, tmp_path, 0, lambda _: None)
    assert Manifest.read(tmp_path) == manifest
    assert ShardReader(path).clusters is None
    assert run("--shards", tmp_path, "--classes", 4) == 0
    (tmp_path / "old").write_bytes(before[path])
    old, new = (ShardReader(each).column("proposals/cluster") for each in (tmp_path / "old", path))
    assert np.array_equal(old, new)
