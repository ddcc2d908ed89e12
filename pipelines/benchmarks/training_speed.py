"""Speed of stage 2 beside references: a training step, reading a sample, starting on a large set."""

import io
import statistics
import time
from collections.abc import Callable, Mapping
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmdet.datasets import CocoDataset
from mmdet.registry import DATASETS, MODELS
from mmdet.structures import DetDataSample
from mmdet.structures.mask import BitmapMasks
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.optim import build_optim_wrapper
from mmengine.registry import init_default_scope
from mmengine.structures import InstanceData
from torch import Tensor

from pipelines.benchmarks.proposal_speed import in_process, synchronize
from stage1_proposals.common.errors import UserError
from stage1_proposals.common.system import keep_freed_memory
from stage1_proposals.shards import ShardReader, ShardSet
from stage2_training.config.compose import pretraining_config, read_fragment, set_num_classes
from stage2_training.data import ShardSampler
from tests.reference.plain_knet import PlainKNet
from tests.reference.plain_streaming import plain_read
from tests.reference.synthetic_shards import make_coco, make_manifest, make_shards

FEATURE_DIM = 2048
PORT, VANILLA, PROMPTED = "plain port", "vanilla", "Saliency Prompt"


@dataclass(frozen=True)
class Setting:
    """What is trained on what.

    Attributes:
        model: name of a K-Net in its pre-training form; one class.
        size: width and height of the images, in pixels.
        instances: per image.
        precision: `float32` or `bfloat16`, the autocast of the forward pass.
    """

    model: str
    batch_size: int
    size: tuple[int, int]
    instances: int
    device: str
    precision: str


def variants(setting: Setting) -> dict[str, dict[str, Any]]:
    """Model configs of the plain port, of vanilla K-Net and of Saliency Prompt.

    Raises:
        UserError: the model is no K-Net.
    """
    fragment = Config(read_fragment("models", setting.model))
    pretraining = fragment.pop("pretraining", {})
    prompt_settings = pretraining.pop("saliency_prompt", {})
    fragment.merge_from_dict({"model": pretraining})
    set_num_classes(fragment.model, 1)
    vanilla = fragment.model.to_dict()
    if vanilla["type"] != "KNet":
        raise UserError(f"model {setting.model}: is a {vanilla['type']}; the plain port is of K-Net, so pass one of it")
    prompt_settings = {"feature_dim": vanilla["neck"]["in_channels"][-1], **prompt_settings}
    prompted = vanilla | {"type": "SaliencyPromptKNet", "saliency_prompt": prompt_settings}
    return {PORT: vanilla | {"type": PlainKNet}, VANILLA: vanilla, PROMPTED: prompted}


def synthetic_batch(setting: Setting, feature_dim: int) -> dict[str, Any]:
    """A batch as the data loader returns it: noise for images, ellipses of all sizes for pseudo masks."""
    rng = np.random.default_rng(0)
    width, height = setting.size
    y, x = np.ogrid[:height, :width]
    samples = []
    for _ in range(setting.batch_size):
        masks = np.zeros((setting.instances, height, width), np.uint8)
        for mask in masks:
            centre_y, centre_x = rng.uniform(0, height), rng.uniform(0, width)
            radius_y, radius_x = np.exp(rng.uniform(np.log(0.03), np.log(0.5), 2)) * (height, width)
            mask[:] = ((y - centre_y) / radius_y) ** 2 + ((x - centre_x) / radius_x) ** 2 <= 1
            mask[int(centre_y), int(centre_x)] = 1
        bitmaps = BitmapMasks(masks, height, width)
        sample = DetDataSample(metainfo={"img_shape": (height, width), "ori_shape": (height, width)})
        sample.gt_instances = InstanceData(
            bboxes=bitmaps.get_bboxes("hbox").tensor,
            labels=torch.zeros(setting.instances, dtype=torch.long),
            masks=bitmaps,
            seed_features=torch.from_numpy(rng.standard_normal((setting.instances, feature_dim), np.float32)),
        )
        samples.append(sample)
    images = [torch.from_numpy(rng.integers(0, 256, (3, height, width), np.uint8)) for _ in samples]
    return {"inputs": images, "data_samples": samples}


class Step:
    """A model with the optimizer of the schedule `pretrain`; called, it takes a training step on the batch."""

    def __init__(self, config: Mapping[str, Any], batch: Mapping[str, Any], setting: Setting) -> None:
        init_default_scope("mmdet")
        if not MMLogger.check_instance_created(__name__):  # MMEngine logs every parameter at INFO
            MMLogger.get_instance(__name__, log_level="WARNING")
        torch.manual_seed(0)
        self.model: Any = MODELS.build(dict(config))
        self.model.init_weights()
        self.model.to(setting.device).train()
        self.optimizer = build_optim_wrapper(self.model, read_fragment("schedules", "pretrain")["optim_wrapper"])
        self.batch, self.setting = batch, setting

    def __call__(self) -> None:
        loss, _ = self.model.parse_losses(self.losses())
        self.optimizer.update_params(loss)

    def losses(self) -> dict[str, Tensor]:
        data = self.model.data_preprocessor(dict(self.batch), True)
        with torch.autocast(self.setting.device, torch.bfloat16, enabled=self.setting.precision == "bfloat16"):
            return self.model(**data, mode="loss")


def compare_steps(setting: Setting, rounds: int) -> dict[str, str]:
    """Time of a step of each variant, ratios (medians over rounds), and how well the losses agree."""
    configs = variants(setting)
    batch = synthetic_batch(setting, configs[PROMPTED]["saliency_prompt"]["feature_dim"])
    steps = {name: Step(config, batch, setting) for name, config in configs.items()}
    with torch.no_grad():
        port, ours = (steps[name].losses() for name in (PORT, VANILLA))
    difference = max(abs(float(port[name] / ours[name]) - 1) for name in ours)
    seconds = measure_in_turn(steps, setting.device, rounds)
    width, height = setting.size
    return {
        "setting": f"{setting.model}, batch {setting.batch_size} of {width} x {height} with {setting.instances} masks, "
        f"{setting.precision}",
        **{f"step, {name}": f"{1000 * statistics.median(times):.0f} ms" for name, times in seconds.items()},
        f"{PORT} / {VANILLA}": f"{ratio(seconds[PORT], seconds[VANILLA]):.3f}",
        f"{PROMPTED} / {VANILLA}": f"{ratio(seconds[PROMPTED], seconds[VANILLA]):.3f}",
        "largest relative difference of a loss": f"{difference:.1e}",
    }


def measure_in_turn(functions: Mapping[str, Callable[[], object]], device: str, rounds: int) -> dict[str, list[float]]:
    """Seconds of each function in every round; a round calls each once, and one more round warms up."""
    seconds: dict[str, list[float]] = {name: [] for name in functions}
    for _ in range(rounds + 1):
        for name, function in functions.items():
            synchronize(device)
            start = time.perf_counter()
            function()
            synchronize(device)
            seconds[name].append(time.perf_counter() - start)
    return {name: times[1:] for name, times in seconds.items()}


def ratio(seconds: list[float], others: list[float]) -> float:
    """Median over rounds: what slows the machine for a while slows both in a round."""
    return statistics.median(mine / other for mine, other in zip(seconds, others, strict=True))


def compare_reading(scratch: Path, images: int, rounds: int) -> dict[str, str]:
    """Time of reading a sample from a shard, with its masks decoded, ours and with h5py and pycocotools."""
    shards = make_shards(scratch / "shards", images, FEATURE_DIM)
    ours, plain = in_process(measure_reading, shards, rounds)
    return {
        "ours": f"{1000 * ours:.2f} ms",
        "h5py and pycocotools": f"{1000 * plain:.2f} ms",
        "h5py and pycocotools / ours": f"{plain / ours:.1f}",
    }


def measure_reading(directory: Path, rounds: int) -> tuple[float, float]:
    """Median seconds of a sample, ours and plain, in random order, with the file open and in the page cache."""
    keep_freed_memory()
    (path,) = ShardSet.open(directory).shard_paths
    reader = ShardReader(path)
    indices = np.random.default_rng(0).permutation(len(reader)).tolist()

    def seconds(read: Callable[[int], object]) -> float:
        times = []
        for index in indices * (rounds + 1):
            start = time.perf_counter()
            read(index)
            times.append(time.perf_counter() - start)
        return statistics.median(times[len(indices) :])

    return seconds(lambda index: reader.read(index).masks()), seconds(lambda index: plain_read(path, index))


def compare_start(scratch: Path, images: int, masks: int, share: int) -> dict[str, str]:
    """Time of the start of training on a manifest and on COCO JSON with a part of the images, multiplied."""
    few = max(1, images // share)
    ours = in_process(start_on_shards, make_manifest(scratch / "manifest", images))
    coco = images / few * in_process(start_on_coco, make_coco(scratch / "coco.json", few, masks))
    return {
        f"ours, manifest of {images:,} images": f"{ours:.2f} s",
        f"CocoDataset, {few:,} images with {masks} masks each, times {images / few:.1f}": f"{coco:.2f} s",
        "CocoDataset / ours": f"{coco / ours:,.0f}",
    }


def start_on_shards(directory: Path) -> float:
    """Seconds to compose the config, and to build the dataset and the sampler of pre-training."""
    init_default_scope("mmdet")
    start = time.perf_counter()
    config = pretraining_config("knet", "pretrain", ShardSet.open(directory))
    dataset = DATASETS.build(config.train_dataloader.dataset)
    assert 0 <= next(iter(ShardSampler(dataset, seed=0))) < len(dataset)
    return time.perf_counter() - start


def start_on_coco(path: Path) -> float:
    """Seconds to build MMDetection's dataset on the same labels."""
    start = time.perf_counter()
    with redirect_stdout(io.StringIO()):
        CocoDataset(ann_file=str(path), data_prefix={"img": ""}, metainfo={"classes": ("object",)}, pipeline=[])
    return time.perf_counter() - start
