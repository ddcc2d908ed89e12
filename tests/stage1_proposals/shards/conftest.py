"""Random shard contents, and one small shard on disk."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import strategies as st
from pycocotools import mask as coco_mask

from stage1_proposals.shards import ImageRecord, shard_file_name, to_columns, write_shard
from tests.shard_sets import make_request

# (records, failures, feature dimension): what a shard holds.
Contents = tuple[list[ImageRecord], list[tuple[str, str]], int]

GENERATOR = {"name": "saliency", "threshold": 0.5}


def random_record(rng: np.random.Generator, name: str, count: int, feature_dim: int) -> ImageRecord:
    height, width = (int(side) for side in rng.integers(1, 40, 2))
    masks = rng.random((count, height, width)) < rng.random((count, 1, 1))
    masks[:, rng.integers(0, height), rng.integers(0, width)] = True
    rles = coco_mask.encode(np.asfortranarray(masks.transpose(1, 2, 0).astype(np.uint8))) if count else []
    box = np.asarray(coco_mask.toBbox(rles), np.float32).reshape(-1, 4)
    return ImageRecord(
        image_id=int(rng.integers(0, 2**63)),
        file_name=name,
        height=height,
        width=width,
        bbox=np.concatenate([box[:, :2], box[:, :2] + box[:, 2:]], axis=1),
        score=rng.random(count, np.float32),
        area=masks.sum((1, 2)).astype(np.int64).reshape(count),
        seed=rng.random((count, 2), np.float32),
        feature=rng.standard_normal((count, feature_dim)).astype(np.float16),
        rle=[rle["counts"] for rle in rles],
    )


# As the file system names files: any bytes but NUL, those that are not UTF-8 as surrogates.
_NAMES = st.one_of(
    st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=20),
    st.binary(min_size=1, max_size=20).map(lambda data: os.fsdecode(data.replace(b"\0", b"x"))),
)


@st.composite
def _contents(draw: st.DrawFn) -> Contents:
    rng = np.random.default_rng(draw(st.integers(0, 10_000)))
    counts, feature_dim = draw(st.lists(st.integers(0, 4), max_size=5)), draw(st.integers(1, 6))
    records = [random_record(rng, draw(_NAMES), count, feature_dim) for count in counts]
    return records, draw(st.lists(st.tuples(_NAMES, _NAMES), max_size=3)), feature_dim


@pytest.fixture(scope="session")
def contents() -> st.SearchStrategy[Contents]:
    """Strategy: shards of no to five images with no to four proposals each, and failures."""
    return _contents()


@pytest.fixture(scope="session")
def some_contents() -> Contents:
    """Three images with three, no and two proposals, one failure, D = 3."""
    rng = np.random.default_rng(0)
    return [random_record(rng, f"dir/{n}-ü.jpg", n, 3) for n in (3, 0, 2)], [("bad.jpg", "is empty (0 bytes)")], 3


@pytest.fixture(scope="session")
def write() -> Callable[..., str]:
    """(path, contents, software, changes to the request) -> the content hash of the shard written there."""

    def write(path: Path, contents: Contents, software: str = "test", **changes: Any) -> str:
        request = make_request(**{"image_root": "/images/ünï", "shard_count": 1, "generator": GENERATOR, **changes})
        return write_shard(path, to_columns(*contents), request, 0, software)

    return write


@pytest.fixture
def shard(tmp_path: Path, write: Callable[..., str], some_contents: Contents) -> Path:
    """`some_contents` on disk."""
    path = tmp_path / shard_file_name(0, 1)
    write(path, some_contents)
    return path
