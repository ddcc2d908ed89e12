"""Small image folders, shard sets and labelled sets, written with the project's own writers."""

# Process-wide settings come before the imports of the libraries that read them.
# ruff: noqa: E402
import os

from stage1_proposals.common.system import configure_process

configure_process()
# Tests compute on the CPU, also where there is a GPU; MMEngine looks for one when it is imported.
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")
# Several tests share the cores, here and in the processes that tests start: more threads would wait for each other, and
# tensors as small as theirs take longer on several threads anyway. Nor does a pool of threads survive a fork.
os.environ["OMP_NUM_THREADS"] = "1"

import gc

gc.disable()  # until all is imported, which takes a tenth less time without it

import json
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from stage1_proposals.shards import (
    ImageRecord,
    Manifest,
    ShardEntry,
    ShardSet,
    shard_file_name,
    to_columns,
    write_shard,
)
from tests.shard_sets import make_request

configure_process()
# Ray's workers stand back for all else (nice 15): beside other tests they would wait for minutes.
os.environ.setdefault("RAY_worker_niceness", "0")
# A run joins whatever cluster it finds on this machine, if it is not told: also that of a test beside it.
os.environ["RAY_ADDRESS"] = "local"
FEATURE_DIM = 4
# The files that take longest, roughly in that order: they are begun first, so that none is left to a single worker.
SLOW = (
    "pipelines/training/test_pretrain_finetune_evaluate.py",
    "pipelines/training/test_going_on.py",
    "pipelines/test_demo.py",
    "stage1_proposals/jobs/test_interruption.py",
    "stage1_proposals/jobs/test_workers.py",
    "stage1_proposals/jobs/test_ray_cluster.py",
    "stage2_training/config/test_mmdetection_tools.py",
    "pipelines/training/test_user_errors.py",
    "pipelines/test_custom_dataset.py",
    "stage2_training/engine/test_processes.py",
    "pipelines/test_draw.py",
    "pipelines/test_launch.py",
    "stage1_proposals/jobs/test_failed_images.py",
    "stage1_proposals/jobs/test_store.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Start with the files of `SLOW`."""
    places = {f"tests/{name}": place for place, name in enumerate(SLOW)}
    items.sort(key=lambda item: places.get(item.nodeid.partition("::")[0], len(SLOW)))


def pytest_collection_finish() -> None:
    """Spare the garbage collector all that was imported: MMEngine calls it for every dataset, some tenths a call."""
    gc.freeze()
    gc.enable()


@pytest.fixture(scope="session")
def image_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve crops of real photographs, 64-96 px a side, and two files that are no images. Not to be changed."""
    from skimage import data

    root = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    sources = [data.astronaut(), data.coffee(), data.chelsea()]
    for number in range(12):
        source = sources[number % 3]
        height, width = (int(side) for side in rng.integers(64, 97, 2))
        y, x = (int(rng.integers(0, side - 2 * cut)) for side, cut in zip(source.shape, (height, width), strict=False))
        crop = Image.fromarray(source[y : y + 2 * height, x : x + 2 * width]).resize((width, height))
        (root / f"{number % 2}").mkdir(exist_ok=True)
        crop.save(root / f"{number % 2}" / f"{number:04d}.png")
    (root / "0" / "empty.jpg").touch()
    (root / "1" / "text.jpg").write_text("not an image")
    return root


def _record(image_id: int, file_name: str, masks: np.ndarray, features: np.ndarray) -> ImageRecord:
    count, height, width = masks.shape
    rles = coco_mask.encode(np.asfortranarray(masks.astype(np.uint8).transpose(1, 2, 0))) if count else []
    box = coco_mask.toBbox(rles).reshape(-1, 4) if count else np.zeros((0, 4))
    return ImageRecord(
        image_id=image_id,
        file_name=file_name,
        height=height,
        width=width,
        bbox=np.concatenate([box[:, :2], box[:, :2] + box[:, 2:]], axis=1).astype(np.float32),
        score=np.full(count, 0.9, np.float32),
        area=masks.sum((1, 2)).astype(np.int64),
        seed=np.full((count, 2), 0.5, np.float32),
        feature=np.asarray(features, np.float16),
        rle=[rle["counts"] for rle in rles],
    )


def _rectangles(boxes: list[tuple[int, int, int, int]], height: int, width: int) -> np.ndarray:
    masks = np.zeros((len(boxes), height, width), np.uint8)
    for mask, (y0, x0, y1, x1) in zip(masks, boxes, strict=True):
        mask[y0:y1, x0:x1] = 1
    return masks


@pytest.fixture(scope="session")
def make_record() -> Callable[..., ImageRecord]:
    """(image_id, file_name, masks (L, H, W), features (L, D)) -> the record, all else derived."""
    return _record


@pytest.fixture(scope="session")
def rectangles() -> Callable[..., np.ndarray]:
    """(boxes [(y0, x0, y1, x1)], height, width) -> masks uint8 (L, H, W) of filled rectangles."""
    return _rectangles


@pytest.fixture
def write_shards(tmp_path: Path) -> Callable[..., ShardSet]:
    """Write images and a shard set: `records` per shard, `backbone` as its manifest states it."""

    def write(shards: list[list[ImageRecord]], backbone: dict | None = None, images: bool = True) -> ShardSet:
        directory, root = tmp_path / "shards", tmp_path / "images"
        directory.mkdir()
        backbone = {
            "name": "lite0_imagenet",
            "weights": None,
            "sha256": "",
            "stride": 32,
            "feature_dim": FEATURE_DIM,
        } | (backbone or {})
        request = make_request(backbone, image_root=str(root), shard_count=len(shards), generator={"name": "saliency"})
        entries = []
        rng = np.random.default_rng(0)
        for index, records in enumerate(shards):
            for record in records if images else []:
                path = root / record.file_name
                path.parent.mkdir(parents=True, exist_ok=True)
                pixels = rng.integers(0, 256, (record.height, record.width, 3), dtype=np.uint8)
                for mask in record.masks():
                    pixels[mask == 1] = rng.integers(0, 256, 3)
                Image.fromarray(pixels).save(path)
            name = shard_file_name(index, len(shards))
            columns = to_columns(records, [], backbone["feature_dim"])
            content = write_shard(directory / name, columns, request, index, "test")
            count = sum(map(len, records))
            entries.append(ShardEntry(name, len(records), count, failures=0, content_sha256=content))
        Manifest(request, tuple(entries)).write(directory)
        return ShardSet.open(directory)

    return write


@pytest.fixture(scope="session")
def damage_column() -> Callable[[Path, str], None]:
    """(shard, column) -> a bit of the column's data is flipped."""

    def damage(path: Path, column: str) -> None:
        with h5py.File(path) as file:
            offset = file[column].id.get_chunk_info(0).byte_offset
        data = bytearray(path.read_bytes())
        data[offset] ^= 1
        path.write_bytes(data)

    return damage


@pytest.fixture
def write_labels(tmp_path: Path) -> Callable[..., Path]:
    """Write images with bright rectangles on dark noise, and COCO JSON of them, train and test alike."""

    def write(images: int = 4, size: tuple[int, int] = (64, 64)) -> Path:
        root = tmp_path / "labelled"
        rng = np.random.default_rng(1)
        for split in ("train", "test"):
            entries, annotations = [], []
            for image_id in range(1, images + 1):
                pixels = rng.integers(0, 100, (*size, 3), dtype=np.uint8)
                name = f"{split}/{image_id}.png"
                (root / split).mkdir(parents=True, exist_ok=True)
                entries.append({"id": image_id, "file_name": name, "height": size[0], "width": size[1]})
                for _ in range(2):
                    x, y = rng.integers(0, size[1] - 24), rng.integers(0, size[0] - 24)
                    width, height = rng.integers(12, 24, 2)
                    pixels[y : y + height, x : x + width] = 230
                    x0, y0, x1, y1 = (int(v) for v in (x, y, x + width, y + height))
                    annotations.append(
                        {
                            "id": len(annotations) + 1,
                            "image_id": image_id,
                            "category_id": 1,
                            "segmentation": [[x0, y0, x1, y0, x1, y1, x0, y1]],
                            "bbox": [x0, y0, x1 - x0, y1 - y0],
                            "area": (x1 - x0) * (y1 - y0),
                            "iscrowd": 0,
                        }
                    )
                Image.fromarray(pixels).save(root / name)
            coco = {"images": entries, "annotations": annotations, "categories": [{"id": 1, "name": "text"}]}
            path = root / "annotations" / f"{split}.json"
            path.parent.mkdir(exist_ok=True)
            path.write_text(json.dumps(coco))
        return root

    return write
