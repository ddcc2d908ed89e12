"""Helpers of tests that write and read shard sets."""

from pathlib import Path
from typing import Any

import h5py
import numpy as np

from stage1_proposals.generators.registry import read_settings
from stage1_proposals.shards import BackboneRecord, ImageRecord, Request, ShardReader, ShardSet

# Generators that every run must make the same shards with, as the changes of `make_job`.
GENERATORS: dict[str, dict[str, Any]] = {
    "saliency": {},
    "component": read_settings(None, "saliency", ["component=seed"]),
    "merging": read_settings(None, "merging", []),
    "small objects": {**read_settings(None, "merging", [], "small"), "tile": 64},
}


def ignore(_: int) -> None:
    pass


def hashes(directory: Path) -> list[str]:
    return [entry.content_sha256 for entry in ShardSet.open(directory).entries]


def shard_files(directory: Path) -> list[Path]:
    return sorted(directory.glob("*.h5"))


def read_all(directory: Path) -> list[ImageRecord]:
    readers = [ShardReader(path) for path in ShardSet.open(directory).shard_paths]
    return [reader.read(row) for reader in readers for row in range(len(reader))]


def failures(directory: Path) -> dict[str, str]:
    return dict(failure for path in ShardSet.open(directory).shard_paths for failure in ShardReader(path).failures())


def make_request(backbone: dict[str, Any] | None = None, **changes: Any) -> Request:
    """A request for two shards of three images, with `changes`."""
    values: dict[str, Any] = {
        "image_root": "/images",
        "image_count": 6,
        "image_list_sha256": "cd",
        "images_per_shard": 3,
        "shard_count": 2,
        "generator": {"name": "saliency", "threshold": 0.5, "short_side": 64, "long_side": 128},
    }
    record = {"name": "lite0_imagenet", "weights": None, "sha256": "ab", "stride": 32, "feature_dim": 3}
    return Request(**values | changes, backbone=BackboneRecord(**record | (backbone or {})))


def fix_attribute_lengths(path: Path) -> None:
    """Turn a shard into one of before: text attributes of fixed length, and no hash of them."""

    def rewrite(item: h5py.File | h5py.Dataset) -> None:
        item.attrs.pop("attributes_sha256", None)
        for name, value in list(item.attrs.items()):
            if isinstance(value, str):
                data = value.encode("utf-8", errors="surrogateescape")
                item.attrs[name] = np.array(data, h5py.string_dtype("utf-8", max(1, len(data))))

    with h5py.File(path, "r+", libver=("v110", "v110")) as file:
        rewrite(file)
        file.visititems(lambda _, item: rewrite(item))
