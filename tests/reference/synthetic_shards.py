"""Shards that look like stage 1's, made by its own encoder and writer, and the same labels as COCO JSON."""

import json
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from pycocotools import mask as coco_mask
from skimage import data

from stage1_proposals.generators.mask_rle import encode_changes, mask_changes
from stage1_proposals.shards import (
    BackboneRecord,
    ImageRecord,
    Manifest,
    Request,
    ShardEntry,
    shard_file_name,
    to_columns,
    write_shard,
)

STRIDE = 32
PROPOSALS = 20
HEIGHT, WIDTH = 480, 640


def make_record(rng: np.random.Generator, number: int, feature_dim: int, proposals: int = PROPOSALS) -> ImageRecord:
    """An image of 640 x 480 whose masks are blobs of a saliency map, upsampled and encoded as stage 1 does it."""
    size = (HEIGHT, WIDTH)
    y, x = np.mgrid[: HEIGHT // STRIDE, : WIDTH // STRIDE]
    centre_y, centre_x = rng.uniform(0, y.shape, (proposals, 2)).T[:, :, None, None]
    radius_y, radius_x = rng.uniform(2, 6, (2, proposals, 1, 1))
    maps = np.exp(-(((y - centre_y) / radius_y) ** 2) - ((x - centre_x) / radius_x) ** 2)
    maps += 0.06 * rng.standard_normal(maps.shape)
    low, high = maps.min((1, 2), keepdims=True), maps.max((1, 2), keepdims=True)
    mask, pixel = mask_changes(torch.from_numpy((maps - low) / (high - low)).float(), size, 0.5)
    rle = encode_changes([pixel[mask == index].numpy() for index in range(proposals)], size)
    objects = [{"size": list(size), "counts": counts} for counts in rle]
    box = coco_mask.toBbox(objects)
    return ImageRecord(
        image_id=number,
        file_name=f"{number:012d}.jpg",
        height=HEIGHT,
        width=WIDTH,
        bbox=np.concatenate([box[:, :2], box[:, :2] + box[:, 2:]], axis=1).astype(np.float32),
        score=np.sort(rng.random(proposals, np.float32))[::-1],
        area=coco_mask.area(objects).astype(np.int64),
        seed=rng.random((proposals, 2), np.float32),
        feature=rng.standard_normal((proposals, feature_dim)).astype(np.float16),
        rle=rle,
    )


def make_shards(directory: Path, images: int, feature_dim: int) -> Path:
    """A set of one shard, and its images beside it: JPEGs of 640 x 480 of scikit-image's photographs, taken in turn."""
    rng = np.random.default_rng(0)
    records = [make_record(rng, number, feature_dim) for number in range(images)]
    folder = directory / "images"
    folder.mkdir(parents=True)
    sources = [Image.fromarray(source).resize((WIDTH, HEIGHT)) for source in (data.astronaut(), data.coffee())]
    for record, source in zip(records, cycle(sources), strict=False):
        source.save(folder / record.file_name, quality=90)
    request = make_request(str(folder), images, images, feature_dim)
    columns = to_columns(records, [], feature_dim)
    content = write_shard(directory / shard_file_name(0, 1), columns, request, 0, "benchmark")
    Manifest(request, (make_entry(0, 1, images, content),)).write(directory)
    return directory


def make_manifest(directory: Path, images: int, per_shard: int = 1000) -> Path:
    """A set of many images of which there is the manifest; the shards, which nobody opens at start, are empty files."""
    directory.mkdir(parents=True)
    counts = [min(per_shard, images - first) for first in range(0, images, per_shard)]
    entries = [make_entry(index, len(counts), count, f"{index:064x}") for index, count in enumerate(counts)]
    for entry in entries:
        (directory / entry.file).touch()
    Manifest(make_request("images", images, per_shard, 2048), tuple(entries)).write(directory)
    return directory


def make_coco(path: Path, images: int, proposals: int) -> Path:
    """COCO JSON of that many images with that many masks each; a hundred images' masks, over and over."""
    rng = np.random.default_rng(0)
    records = [make_record(rng, number, 1, proposals) for number in range(min(images, 100))]
    labels: dict[str, list[dict[str, Any]]] = {"images": [], "annotations": []}
    labels["categories"] = [{"id": 1, "name": "object"}]
    for number, record in enumerate(islice(cycle(records), images)):
        labels["images"].append({"id": number, "file_name": f"{number:012d}.jpg", "height": HEIGHT, "width": WIDTH})
        for box, area, counts in zip(record.bbox.tolist(), record.area.tolist(), record.rle, strict=True):
            annotation = {
                "id": len(labels["annotations"]),
                "image_id": number,
                "category_id": 1,
                "bbox": [box[0], box[1], box[2] - box[0], box[3] - box[1]],
                "area": area,
                "iscrowd": 0,
                "segmentation": {"size": [HEIGHT, WIDTH], "counts": counts.decode()},
            }
            labels["annotations"].append(annotation)
    path.write_text(json.dumps(labels))
    return path


def make_request(image_root: str, images: int, per_shard: int, feature_dim: int) -> Request:
    return Request(
        image_root=image_root,
        image_count=images,
        image_list_sha256="",
        images_per_shard=per_shard,
        shard_count=-(-images // per_shard),
        generator={"name": "saliency"},
        backbone=BackboneRecord("benchmark", None, "", STRIDE, feature_dim),
    )


def make_entry(index: int, count: int, images: int, content_sha256: str) -> ShardEntry:
    """The manifest's entry of shard `index` of `count`."""
    return ShardEntry(shard_file_name(index, count), images, images * PROPOSALS, 0, content_sha256)
