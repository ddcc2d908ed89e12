"""Stage 1's own fixtures: a job on a dozen small photos, and a Ray cluster of this session."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from stage1_proposals.generators import build_generator
from stage1_proposals.images import list_photos
from stage1_proposals.job import Job, Recipe


@pytest.fixture
def make_job(photo_folder: Path) -> Callable[..., Job]:
    """(changes) -> a job of 14 files, two of them no photos, in shards of four."""

    def make(photos: Path = photo_folder, generator: dict[str, Any] | None = None, **changes: Any) -> Job:
        settings: dict[str, Any] = {
            "backbone": "lite0_imagenet",
            "weights": None,
            "short_side": 64,
            "long_side": 128,
            "images_per_shard": 4,
            "batch_size": 3,
            "device": "cpu",
        }
        settings |= changes
        images_per_shard = settings.pop("images_per_shard")
        return Job(list_photos(photos), Recipe(build_generator(generator or {}), **settings), images_per_shard)

    return make


@pytest.fixture
def all_threads() -> Iterator[None]:
    """A run in this process sets torch to one thread; afterwards it has its threads back."""
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[None]:
    """A Ray cluster of two cores on this machine; runs in this process join it."""
    from stage1_proposals.ray_pool import ray

    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    yield
    ray.shutdown()
