"""Stage 1's own fixtures: a job on a dozen small images, and a user without rights."""

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from stage1_proposals.common.settings import build_settings
from stage1_proposals.generators.registry import build_generator
from stage1_proposals.images.listing import list_images
from stage1_proposals.jobs.request import Job, JobSettings, Recipe
from stage1_proposals.jobs.run import run
from tests.shard_sets import GENERATORS


@pytest.fixture(scope="session")
def make_job(image_folder: Path) -> Callable[..., Job]:
    """(changes) -> a job of 14 files, two of them no images, in shards of four."""

    def make(images: Path = image_folder, generator: dict[str, Any] | None = None, **changes: Any) -> Job:
        values: dict[str, Any] = {"short_side": 64, "long_side": 128, "images_per_shard": 4, "batch_size": 3}
        values |= {"feature_stride": None, "full_size": False, "tile": None}
        recipe: dict[str, Any] = {"backbone": "lite0_imagenet", "weights": None, "device": "cpu"}
        values |= {name: value for name, value in changes.items() if name in values}
        recipe |= {name: value for name, value in changes.items() if name not in values}
        settings = build_settings(JobSettings, values, "job")
        return Job(list_images(images), Recipe(build_generator(generator or {}), **recipe, settings=settings))

    return make


@pytest.fixture(scope="session")
def finished(make_job: Callable[..., Job], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The set that an undisturbed run in one process makes of `make_job()`. Not to be changed."""
    directory = tmp_path_factory.mktemp("finished") / "shards"
    run(make_job(), directory, 0, lambda _: None)
    return directory


@pytest.fixture(scope="session")
def finished_by(
    finished: Path, make_job: Callable[..., Job], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Path]:
    """(a key of `GENERATORS`) -> the set that an undisturbed run makes of its job. Not to be changed."""

    @cache
    def make(name: str) -> Path:
        if not GENERATORS[name]:
            return finished
        directory = tmp_path_factory.mktemp("finished") / "shards"
        run(make_job(**GENERATORS[name]), directory, 0, lambda _: None)
        return directory

    return make


@pytest.fixture
def directory(finished: Path, tmp_path: Path) -> Path:
    """A copy of the finished set, to do harm to."""
    return Path(shutil.copytree(finished, tmp_path / "shards"))


NOBODY = 65534


@pytest.fixture
def as_nobody() -> Callable[[], AbstractContextManager[None]]:
    """() -> within it, root has the rights of nobody, so that permissions count; other users have their own."""

    @contextmanager
    def drop() -> Iterator[None]:
        user = os.geteuid()
        if user == 0:
            os.seteuid(NOBODY)
        try:
            yield
        finally:
            os.seteuid(user)

    return drop


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that every user may read and write; pytest's own are closed to others."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o777)
    yield folder
    for path in folder.iterdir():
        path.chmod(0o700)
    shutil.rmtree(folder)
