"""The optional cluster column: a pseudo class for each proposal, and the centroids that decide it."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from stage1_proposals.shards.reader import read_attribute
from stage1_proposals.shards.schema import CLUSTER
from stage1_proposals.shards.writer import create_column, hdf5_in_memory, write_attribute

CENTROIDS_FILE = "clusters.h5"


def write_clusters(path: Path, cluster: NDArray[np.int32], clusters: Mapping[str, Any]) -> None:
    """Give the shard at `path` its cluster column, in place of one it may have; all else in it stays.

    The shard is replaced by a whole new file, so that it is sound at any time.

    Args:
        cluster: int32 (p,), from 0.
        clusters: how they were made, JSON-ready; `classes` is their number.

    Raises:
        OSError: it cannot be read or written; the shard stays as it was.
    """
    with hdf5_in_memory(path, "r+") as file:
        if CLUSTER in file:
            del file[CLUSTER]
        write_attribute(create_column(file, CLUSTER, cluster), "clusters", json.dumps(clusters, sort_keys=True))


def write_centroids(directory: Path, centroids: NDArray[np.float32], clusters: Mapping[str, Any]) -> None:
    """Write the centroids, float32 (k, D), and how they were made, beside the shards.

    Raises:
        OSError: they cannot be written.
    """
    with hdf5_in_memory(directory / CENTROIDS_FILE, "w") as file:
        write_attribute(create_column(file, "centroids", centroids), "clusters", json.dumps(clusters, sort_keys=True))


def read_centroids(directory: Path) -> tuple[NDArray[np.float32], dict[str, Any]] | None:
    """The centroids beside the shards and how they were made; None when there are none, or damaged ones."""
    try:
        with h5py.File(directory / CENTROIDS_FILE, "r") as file:
            return file["centroids"][...], json.loads(read_attribute(file["centroids"], "clusters"))
    except (OSError, KeyError, ValueError, RuntimeError):
        return None
