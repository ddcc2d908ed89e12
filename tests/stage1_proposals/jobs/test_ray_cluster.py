"""The command on a Ray cluster of several nodes, one of which is lost in mid-run."""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ray.cluster_utils import Cluster

from stage1_proposals.jobs.request import Job
from stage1_proposals.jobs.run import run
from stage1_proposals.shards import ShardSet

ROOT = Path(__file__).parents[3]


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    """Two nodes of one core each on this machine, the first of them the head."""
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    yield cluster
    cluster.shutdown()


def wait_until(condition: Callable[[], Any], driver: subprocess.Popen) -> None:
    while not condition():
        assert driver.poll() is None, "the command ended early"
        time.sleep(0.05)


def test_a_node_killed_in_mid_run_costs_nothing(
    cluster: Cluster, image_folder: Path, tmp_path: Path, make_job: Callable[..., Job]
) -> None:
    images, shards = tmp_path / "images", tmp_path / "shards"
    for copy in range(6):
        shutil.copytree(image_folder, images / str(copy))
    settings = {"images_per_shard": 5, "short_side": 256, "long_side": 512}
    node = cluster.add_node(num_cpus=1)
    command = [sys.executable, "-m", "pipelines", "proposals", "--images", str(images), "--shards", str(shards)]
    command += [part for key, value in settings.items() for part in (f"--{key.replace('_', '-')}", str(value))]
    driver = subprocess.Popen(
        [*command, "--batch-size", "3"],
        cwd=ROOT,
        env={**os.environ, "RAY_ADDRESS": cluster.address},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_until(lambda: len(list(shards.glob("*.h5"))) >= 4, driver)
    cluster.remove_node(node, allow_graceful=False)
    assert driver.poll() is None
    errors = driver.communicate(timeout=120)[1]
    assert driver.returncode == 0, errors
    run(make_job(images, **settings), tmp_path / "undisturbed", 0, lambda _: None)
    entries, expected = (ShardSet.open(directory).entries for directory in (shards, tmp_path / "undisturbed"))
    assert entries == expected
