"""The reference finds our proposals; what is measured is what the benchmark says."""

import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from stage1_proposals.backbones.extractor import build_extractor
from stage1_proposals.generators.registry import build_generator
from stage1_proposals.images.listing import list_images
from stage1_proposals.jobs.request import Job, JobSettings, Recipe
from tests.benchmarks import proposal_speed
from tests.benchmarks.measuring import in_processes
from tests.benchmarks.proposal_speed import (
    agreement,
    measure_plain,
    measure_run,
    random_weights,
    repeated,
    share,
    with_generator,
)


@pytest.fixture
def sound_images(image_folder: Path, tmp_path: Path) -> Path:
    """Images only: the reference fails on other files."""
    (tmp_path / "images").mkdir()
    for path in image_folder.rglob("*.png"):
        (tmp_path / "images" / path.name).symlink_to(path)
    return tmp_path / "images"


@pytest.fixture
def recipe() -> Recipe:
    settings = JobSettings(images_per_shard=5, batch_size=3, short_side=160, long_side=320)
    return Recipe(build_generator({}), "lite0_imagenet", None, "cpu", settings=settings)


def test_the_plain_implementation_and_ours_find_the_same(sound_images: Path, recipe: Recipe, tmp_path: Path) -> None:
    images = repeated(list_images(sound_images), 14, tmp_path / "links")
    measure_plain(Job(images, recipe), tmp_path / "plain.json")
    measure_run(Job(images, recipe), tmp_path / "same", 0)
    assert agreement(tmp_path / "plain.json", tmp_path / "same") > 0.99
    measure_run(Job(images, replace(recipe, generator=build_generator({"threshold": 0.8}))), tmp_path / "other", 0)
    assert agreement(tmp_path / "plain.json", tmp_path / "other") < 0.9


def test_a_generators_share_is_told(sound_images: Path, recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    job = Job(list_images(sound_images), with_generator(recipe, "merging"))
    assert job.recipe.generator.parameters()["name"] == "merging"
    assert job.recipe.settings.feature_stride == 16
    monkeypatch.setattr(proposal_speed, "seconds_per_image", lambda job, count: (0.3, 0.2))
    assert share(job) == "2.00 images/s with the backbone, 0.60 of the forward pass alone"


def test_images_are_repeated_by_links(sound_images: Path, tmp_path: Path) -> None:
    images = list_images(sound_images)
    many = repeated(images, 30, tmp_path / "links")
    assert many.ids == tuple(range(30))
    first = [(tmp_path / "links" / name).resolve() for name in many.names[: len(images)]]
    assert first == [(sound_images / name).resolve() for name in images.names]
    assert list_images(tmp_path / "links").names == many.names


def test_random_weights_fit_and_tell_images_apart(tmp_path: Path) -> None:
    extractor = build_extractor("imagenet_r50", random_weights("imagenet_r50", tmp_path / "weights.pth"))
    images = torch.rand(2, 3, 128, 128, generator=torch.Generator().manual_seed(0)) * 255
    images[0, :, :64] = 0
    features = extractor(images)
    assert torch.isfinite(features).all()
    assert float((features[0] - features[1]).abs().mean() / features.abs().mean()) > 0.05


def test_processes_have_their_own_environment() -> None:
    assert in_processes(2, os.getenv, "GOMP_SPINCOUNT", environment={"GOMP_SPINCOUNT": "7"}) == ["7", "7"]
