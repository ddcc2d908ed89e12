"""Detectors small enough for a test, K-Net and MMDetection's own, and batches for them."""

import copy
import multiprocessing
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from mmdet.models.detectors import BaseDetector
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmdet.structures.mask import BitmapMasks
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.registry import DefaultScope
from mmengine.structures import InstanceData

import stage2_training.models.mmdet_fixes
import stage2_training.models.unique_objects
import stage2_training.saliency_prompt.detectors  # noqa: F401 (all three register what the configs name)
from stage1_proposals.common.errors import UserError
from stage2_training.config.compose import set_num_classes

CHANNELS, KERNELS, CLASSES, STAGES, SEED_DIM = 32, 6, 3, 2, 5
HEIGHT, WIDTH = 64, 96
RESNET_CHANNELS = {24: 8, 40: 16, 112: 32, 320: 64}  # by those of EfficientNet-Lite0 at the same stride
FRAGMENTS = Path(__file__).parents[2] / "configs" / "models"

# MMEngine announces the initialisation of every parameter, at INFO.
MMLogger.get_instance("tests", log_level="WARNING")

CONFIG = {
    "type": "KNet",
    "backbone": {"type": "ResNet", "depth": 18, "base_channels": 8, "norm_eval": True},
    "neck": {"type": "FPN", "in_channels": [8, 16, 32, 64], "out_channels": CHANNELS, "num_outs": 4},
    "rpn_head": {"type": "KernelHead", "num_kernels": KERNELS, "num_classes": CLASSES, "channels": CHANNELS},
    "roi_head": {
        "type": "KernelIterHead",
        "num_classes": CLASSES,
        "num_stages": STAGES,
        "channels": CHANNELS,
        "num_heads": 4,
        "ffn_channels": CHANNELS,
    },
    "test_cfg": {"max_per_img": 10},
}


@pytest.fixture
def build_knet() -> Callable[..., BaseDetector]:
    """(overrides of the config's top level) -> an initialised detector, the same for the same seed of torch."""

    def build(**overrides: Any) -> BaseDetector:
        torch.manual_seed(0)
        config = copy.deepcopy(CONFIG) | overrides
        with DefaultScope.overwrite_default_scope("mmdet"):
            model = MODELS.build(config)
        model.init_weights()
        return model

    return build


def _shrink(node: Any) -> None:
    """Set the sizes that make a detector small, however deep, in place."""
    small = {"num_queries": KERNELS, "num_proposals": KERNELS, "max_per_img": KERNELS, "max_per_image": KERNELS}
    if isinstance(node, dict):
        node.update({key: value for key, value in small.items() if key in node})
        if isinstance(node.get("in_channels"), list):
            node["in_channels"] = [RESNET_CHANNELS[channels] for channels in node["in_channels"]]
        for value in node.values():
            _shrink(value)
    elif isinstance(node, list):
        for value in node:
            _shrink(value)


@pytest.fixture
def build_adapted() -> Callable[..., BaseDetector]:
    """(name of a fragment for two cores, settings or None) -> it, smaller still, training, with prompts or vanilla."""

    def build(name: str, settings: dict[str, Any] | None = None) -> BaseDetector:
        directory = FRAGMENTS if settings is None else FRAGMENTS.parent / "pretraining"
        model = Config.fromfile(directory / f"{name}_lite0.py").model
        _shrink(model)
        set_num_classes(model, CLASSES)
        outputs = model.backbone.get("out_indices", (0, 1, 2, 3))
        model.backbone = {"type": "ResNet", "depth": 18, "base_channels": 8, "norm_eval": True, "out_indices": outputs}
        if settings is not None:
            model.saliency_prompt = {"feature_dim": SEED_DIM} | settings
        torch.manual_seed(0)
        with DefaultScope.overwrite_default_scope("mmdet"):
            detector = MODELS.build(model)
        detector.init_weights()
        return detector.train()

    return build


@pytest.fixture
def make_batch() -> Callable[[Sequence[int]], tuple[torch.Tensor, list[DetDataSample]]]:
    """(instances of each image) -> images (B, 3, 64, 96) and their samples, with rectangles as instances."""

    def make(counts: Sequence[int]) -> tuple[torch.Tensor, list[DetDataSample]]:
        rng = np.random.default_rng(0)
        samples = []
        for count in counts:
            masks = np.zeros((count, HEIGHT, WIDTH), np.uint8)
            boxes = np.zeros((count, 4), np.float32)
            for mask, box in zip(masks, boxes, strict=True):
                x, y = rng.integers(0, 60), rng.integers(0, 40)
                width, height = rng.integers(8, 36), rng.integers(8, 24)
                mask[y : y + height, x : x + width] = 1
                box[:] = x, y, min(x + width, WIDTH), min(y + height, HEIGHT)
            # The image fills all but the right and lower border of the padded input, at half its own size.
            metainfo = {"img_shape": (60, 90), "ori_shape": (120, 180), "batch_input_shape": (HEIGHT, WIDTH)}
            metainfo |= {"scale_factor": (0.5, 0.5), "pad_shape": (HEIGHT, WIDTH)}
            sample = DetDataSample(metainfo=metainfo)
            sample.gt_instances = InstanceData(
                bboxes=torch.from_numpy(boxes),
                labels=torch.from_numpy(rng.integers(0, CLASSES, count)),
                masks=BitmapMasks(masks, HEIGHT, WIDTH),
                seed_features=torch.from_numpy(rng.standard_normal((count, SEED_DIM), np.float32)),
            )
            samples.append(sample)
        images = torch.from_numpy(rng.standard_normal((len(counts), 3, HEIGHT, WIDTH), np.float32))
        return images, samples

    return make


@pytest.fixture
def in_processes(tmp_path: Path) -> Callable[..., list[Any]]:
    """(number, task) -> what `task(rank)` returns, or raises as a user error, in each of that many gloo processes."""

    def run(number: int, task: Callable[[int], Any]) -> list[Any]:
        context = multiprocessing.get_context("fork")  # what is imported here need not be imported again
        ends = [context.Pipe(duplex=False) for _ in range(number)]
        meeting = tmp_path / f"meeting_{len(list(tmp_path.glob('meeting_*')))}"

        def join(rank: int) -> None:
            os.environ["LOCAL_RANK"] = str(rank)
            dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=number)
            try:
                ends[rank][1].send(task(rank))
            except UserError as error:
                ends[rank][1].send(error)

        children = [context.Process(target=join, args=(rank,)) for rank in range(number)]
        for child in children:
            child.start()
        for _, sender in ends:
            sender.close()
        try:
            assert all(receiver.poll(60) for receiver, _ in ends)
            return [receiver.recv() for receiver, _ in ends]
        finally:
            for child in children:
                child.kill()
                child.join()

    return run
