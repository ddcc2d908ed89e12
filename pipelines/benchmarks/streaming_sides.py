"""The sides of the streaming benchmark: shards and run lengths as we read them, and a plain way of doing the same."""

import gc
import io
import pickle
import time
from collections.abc import Callable
from contextlib import redirect_stdout
from itertools import pairwise
from pathlib import Path
from statistics import median, quantiles
from typing import Any, NamedTuple

import h5py
import numpy as np
import torch
from mmdet.datasets import CocoDataset
from mmdet.registry import DATASETS, TRANSFORMS
from mmdet.structures.bbox import HorizontalBoxes
from mmdet.structures.mask import BitmapMasks
from mmengine.registry import init_default_scope
from pycocotools import mask as coco_mask

from stage1_proposals.common.system import keep_freed_memory
from stage1_proposals.shards import ImageRecord, ShardReader, ShardSet
from stage2_training.config.compose import pretraining_config, read_fragment
from stage2_training.data import PseudoLabelDataset, ShardSampler
from stage2_training.knet.assignment import instance_targets

PAD = 32  # pixels; the padded input is a multiple


class Spread(NamedTuple):
    """Median and 95th percentile of some times, in seconds."""

    median: float
    slow: float


class Cost(NamedTuple):
    """Seconds, and how much more memory the process holds afterwards and at the worst meanwhile, in bytes."""

    seconds: float
    held: int
    peak: int


def plain_read(path: Path, index: int) -> dict[str, Any]:
    """A record as one would read it with h5py and pycocotools: each column by its name, masks made row by row."""
    file = OPEN.setdefault(path, h5py.File(path, "r"))
    first, last = (int(row) for row in file["images/proposals_begin"][index : index + 2])
    begin = file["proposals/rle_begin"][first : last + 1]
    size = [int(file["images/height"][index]), int(file["images/width"][index])]
    counts = file["proposals/rle"][begin[0] : begin[-1]].tobytes()
    rle = [{"size": size, "counts": counts[a:b]} for a, b in pairwise((begin - begin[0]).tolist())]
    columns = {name: file[f"proposals/{name}"][first:last] for name in ("bbox", "score", "area", "seed", "feature")}
    name = file["images/file_name"][index].decode()
    masks = np.ascontiguousarray(coco_mask.decode(rle).transpose(2, 0, 1))
    return {"img_id": int(file["images/id"][index]), "file_name": name, "masks": masks, **columns}


OPEN: dict[Path, h5py.File] = {}


def measure_reading(directory: Path, rounds: int) -> dict[str, Spread]:
    """Reading a shard's samples in random order, its file open and in the page cache: ours in parts, the plain way."""
    keep_freed_memory()
    (path,) = ShardSet.open(directory).shard_paths
    reader = ShardReader(path)
    indices = np.random.default_rng(0).permutation(len(reader)).tolist() * (rounds + 1)
    row, masks, plain = [], [], []
    for index in indices:
        begin = time.perf_counter()
        record = reader.read(index)
        read = time.perf_counter()
        record.masks()
        row.append(read - begin)
        masks.append(time.perf_counter() - read)
    for index in indices:
        begin = time.perf_counter()
        plain_read(path, index)
        plain.append(time.perf_counter() - begin)
    both = [sum(times) for times in zip(row, masks, strict=True)]
    warm = len(reader)
    sides = {"row": row, "masks": masks, "sample": both, "plain": plain}
    return {name: Spread(median(times[warm:]), quantiles(times[warm:], n=20)[-1]) for name, times in sides.items()}


def start_on_shards(directory: Path) -> Cost:
    """Pre-training's start: the composed config, the dataset, the sampler and its first image."""

    init_default_scope("mmdet")

    def start() -> Any:
        shards = ShardSet.open(directory)
        config = pretraining_config("knet", "pretrain", shards)
        dataset = DATASETS.build(config.train_dataloader.dataset)
        sampler = ShardSampler(dataset, seed=0)
        assert 0 <= next(iter(sampler)) < len(dataset)
        return config, dataset, sampler

    return _cost(start)


def start_on_coco(path: Path) -> Cost:
    """The start of MMDetection's dataset on the same labels."""

    def start() -> Any:
        with redirect_stdout(io.StringIO()):
            return CocoDataset(
                ann_file=str(path), data_prefix={"img": ""}, metainfo={"classes": ("object",)}, pipeline=[]
            )

    return _cost(start)


def _cost(start: Callable[[], Any]) -> Cost:
    """What starting costs a process that has imported all there is to import."""
    gc.collect()
    before, begin = _memory("VmRSS"), time.perf_counter()
    kept = start()
    seconds = time.perf_counter() - begin
    gc.collect()
    held, peak = _memory("VmRSS") - before, _memory("VmHWM") - before
    del kept
    return Cost(seconds, max(held, 0), max(peak, 0))


def _memory(name: str) -> int:
    """A line of Linux's account of this process, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    (kibibytes,) = [line.split()[1] for line in lines if line.startswith(f"{name}:")]
    return int(kibibytes) * 1024


class PlainLabels:
    """`LoadPseudoLabels` as one would write it first: bitmaps at full size."""

    def __call__(self, results: dict[str, Any]) -> dict[str, Any]:
        record: ImageRecord = results.pop("record")
        masks = np.ascontiguousarray(coco_mask.decode(record.coco_rle()).transpose(2, 0, 1))
        results["gt_bboxes"] = HorizontalBoxes(torch.from_numpy(record.bbox))
        results["gt_bboxes_labels"] = results.pop("labels")
        results["gt_ignore_flags"] = np.zeros(len(record), bool)
        results["gt_masks"] = BitmapMasks(masks, record.height, record.width)
        results["gt_seed_features"] = record.feature.astype(np.float32)
        return results


def measure_pipeline(directory: Path, schedule: str, plain: bool, rounds: int) -> dict[str, float]:
    """Median seconds of every step that a sample goes through, from the shard to K-Net's targets; always flipped.

    Args:
        schedule: whose pipeline.
        plain: masks are bitmaps throughout.
    """
    torch.set_num_threads(1)
    keep_freed_memory()
    init_default_scope("mmdet")
    dataset = PseudoLabelDataset(str(directory))
    steps: list[tuple[str, Callable[[Any], Any]]] = [("read from the shard", dataset.get_data_info)]
    for config in read_fragment("schedules", schedule)["train_dataloader"]["dataset"]["pipeline"]:
        config |= {"prob": 1.0} if config["type"] == "RandomFlip" else {}
        transform = PlainLabels() if plain and config["type"] == "LoadPseudoLabels" else TRANSFORMS.build(config)
        steps.append((STEPS.get(config["type"], config["type"]), transform))
    steps += [("to the trainer's process", _handed_over), ("K-Net's targets", _targets)]
    times: dict[str, list[float]] = {name: [] for name, _ in steps}
    for index in [*range(min(3, len(dataset))), *list(range(len(dataset))) * rounds]:
        value: Any = index
        for name, step in steps:
            begin = time.perf_counter()
            value = step(value)
            times[name].append(time.perf_counter() - begin)
    return {name: median(each[3:]) for name, each in times.items()}


STEPS = {
    "LoadRGBImage": "decode the image",
    "LoadPseudoLabels": "make the labels",
    "Resize": "resize",
    "RandomFlip": "flip",
    "DropVanishedMasks": "drop vanished masks",
    "PackPseudoLabels": "pack",
}


def _handed_over(packed: dict[str, Any]) -> Any:
    """The labels as they go through a data loader's queue; pixels of images go by shared memory."""
    packed["data_samples"] = pickle.loads(pickle.dumps(packed["data_samples"]))
    return packed


def _targets(packed: dict[str, Any]) -> Any:
    """What the data preprocessor and K-Net do to a sample's masks."""
    height, width = (-(-side // PAD) * PAD for side in packed["inputs"].shape[-2:])
    instances = packed["data_samples"].gt_instances
    instances.masks = instances.masks.pad((height, width))
    return instance_targets([packed["data_samples"]], (height // 4, width // 4))
