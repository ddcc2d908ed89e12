"""A directory that holds other work, or cannot hold this, is refused and left as it is."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from stage1_proposals.backbones.weights import new_network
from stage1_proposals.common.errors import UserError
from stage1_proposals.common.files import exclusive_lock
from stage1_proposals.jobs.request import Job, check_same_request
from stage1_proposals.jobs.run import run
from stage1_proposals.jobs.store import LocalStore
from stage1_proposals.shards import Manifest, ShardError, ShardSet
from tests.shard_sets import hashes, ignore, shard_files


@pytest.mark.parametrize(
    ("changes", "difference"),
    [
        ({"short_side": 96}, "generator.short_side was 64, requested 96"),
        ({"images_per_shard": 5}, "images_per_shard was 4, requested 5; shard_count was 4, requested 3"),
        ({"generator": {"threshold": 0.6}}, "generator.threshold was 0.5, requested 0.6"),
        ({"generator": {"seed_grid": [2, 2]}}, r"generator.seed_grid was None, requested \[2, 2\]"),
    ],
)
def test_other_parameters_are_refused_naming_the_difference(
    directory: Path, make_job: Callable[..., Job], changes: dict[str, Any], difference: str
) -> None:
    before = sorted(directory.iterdir())
    with pytest.raises(UserError, match=f"was made with other settings: {difference}. Choose another"):
        run(make_job(**changes), directory, 0, ignore)
    assert sorted(directory.iterdir()) == before


def test_other_images_are_refused(
    directory: Path, image_folder: Path, tmp_path: Path, make_job: Callable[..., Job]
) -> None:
    images = Path(shutil.copytree(image_folder, tmp_path / "images"))
    with pytest.raises(UserError, match=r"image_root was .*, requested .*"):
        run(make_job(images), directory, 0, ignore)


def test_an_image_more_is_another_request(directory: Path, make_job: Callable[..., Job]) -> None:
    request = replace(ShardSet.open(directory).request, image_count=15, image_list_sha256="other")
    with pytest.raises(UserError, match=r"image_count was 14, requested 15; image_list_sha256 was"):
        check_same_request(LocalStore(directory), request)


def test_a_set_of_the_former_freemask_generator_is_refused_in_one_line(
    directory: Path, make_job: Callable[..., Job]
) -> None:
    shards, job = ShardSet.open(directory), make_job()
    generator = {**shards.request.generator, "name": "freemask"}
    Manifest(replace(shards.request, generator=generator), shards.entries).write(directory)
    with pytest.raises(UserError, match=r"name was 'freemask', requested 'saliency'\. Choose .*, or train"):
        run(job, directory, 0, ignore)


def test_a_weights_file_changed_between_runs_is_other_work(
    tmp_path: Path, image_folder: Path, make_job: Callable[..., Job]
) -> None:
    weights, states = tmp_path / "weights.safetensors", []
    for seed in (0, 1):
        torch.manual_seed(seed)
        states.append(new_network("test_vit").state_dict())
    safetensors.torch.save_file(states[0], weights)
    job = make_job(backbone="test_vit", weights=str(weights))
    run(job, tmp_path / "shards", 0, ignore)
    before = hashes(tmp_path / "shards")
    safetensors.torch.save_file(states[1], weights)
    with pytest.raises(UserError, match=r"was made with other settings: backbone\.sha256 was '\w+', requested '\w+'"):
        run(job, tmp_path / "shards", 0, ignore)
    assert hashes(tmp_path / "shards") == before


def test_a_directory_in_use_is_refused(directory: Path, make_job: Callable[..., Job]) -> None:
    with (
        exclusive_lock(directory),
        pytest.raises(UserError, match="another run is writing there"),
    ):
        run(make_job(), directory, 0, ignore)
    run(make_job(), directory, 0, ignore)


def test_shards_that_may_not_be_written_are_refused(
    finished: Path, open_folder: Path, make_job: Callable[..., Job], as_nobody: Callable[[], Any]
) -> None:
    directory = Path(shutil.copytree(finished, open_folder / "shards"))
    before, job = {path.name: path.read_bytes() for path in directory.iterdir()}, make_job()
    directory.chmod(0o555)
    with as_nobody(), pytest.raises(UserError, match=f"^{directory}.*: cannot be written \\(Permission denied\\)"):
        run(job, directory, 0, ignore)
    assert {path.name: path.read_bytes() for path in directory.iterdir()} == before


def test_a_manifest_that_is_damaged_is_refused_and_written_anew_once_deleted(
    directory: Path, finished: Path, make_job: Callable[..., Job]
) -> None:
    manifest = directory / "manifest.json"
    manifest.write_bytes(manifest.read_bytes()[:-10])
    times = {path: path.stat().st_mtime_ns for path in shard_files(directory)}
    with pytest.raises(ShardError, match=r"manifest\.json: not JSON .*; delete it, and the same `make proposals`"):
        run(make_job(), directory, 0, ignore)
    manifest.unlink()
    run(make_job(), directory, 0, ignore)
    assert manifest.read_bytes() == (finished / "manifest.json").read_bytes()
    assert {path: path.stat().st_mtime_ns for path in shard_files(directory)} == times


def test_a_path_that_cannot_be_a_directory_is_refused(tmp_path: Path, make_job: Callable[..., Job]) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="file: cannot be written"):
        run(make_job(), tmp_path / "file", 0, ignore)
