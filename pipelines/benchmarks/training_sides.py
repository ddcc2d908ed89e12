"""The sides of the training benchmark: K-Net, its plain port, Saliency Prompt and its parts, on one made-up batch."""

import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmdet.structures.mask import BitmapMasks
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.optim import build_optim_wrapper
from mmengine.registry import init_default_scope
from mmengine.structures import InstanceData
from torch import Tensor

from pipelines.benchmarks.memory import peak_memory
from pipelines.benchmarks.plain_knet import PlainKNet, plain_instances, plain_losses
from stage1_proposals.common.errors import UserError
from stage2_training.config.compose import read_fragment, read_prompt_variant, set_num_classes
from stage2_training.knet.assignment import instance_targets
from stage2_training.knet.losses import knet_losses

PORT, VANILLA, PROMPTED = "plain port", "vanilla", "Saliency Prompt"
PARTS = (
    {"kernel_loss_weight": 0.0},
    {"matching": "none"},
    {"matching": "none", "kernel_loss_weight": 0.0},
    {"matching": "sequential"},
    {"rescale": False},
    {"add_to": "object", "rescale": False},
    {"add_to": "object", "match_on": "object", "rescale": False},
    {"detach": False},
    {"drop_prob": 0.0},
)


@dataclass(frozen=True)
class Setting:
    """What is trained on what.

    Attributes:
        model: fragment of a K-Net, in its pre-training form.
        classes: K.
        batch_size: B.
        size: width and height of the images, in pixels.
        instances: of each image.
        device: torch's.
        precision: `float32` or `bfloat16`, the autocast of the forward pass.
    """

    model: str
    classes: int
    batch_size: int
    size: tuple[int, int]
    instances: int
    device: str
    precision: str


@dataclass(frozen=True)
class Cost:
    """Seconds of a step (median), the median over rounds of its ratio to vanilla K-Net's, and peak bytes."""

    seconds: float
    ratio: float
    memory: int


def variants(setting: Setting) -> dict[str, dict[str, Any]]:
    """Model configs by name: the plain port, vanilla K-Net, and Saliency Prompt with all its parts and without each.

    Raises:
        UserError: the model is no K-Net.
    """
    prompted = Config(read_prompt_variant(setting.model)).model
    set_num_classes(prompted, setting.classes)
    prompted = prompted.to_dict()
    of_prompts = prompted.pop("saliency_prompt")
    if prompted["type"] != "SaliencyPromptKNet":
        raise UserError(f"model {setting.model}: is a {prompted['type']}; the plain port is of K-Net, pass one of it")
    vanilla = prompted | {"type": "KNet"}
    of_prompts = {"feature_dim": vanilla["neck"]["in_channels"][-1], **of_prompts}
    sides = {PORT: vanilla | {"type": PlainKNet}, VANILLA: vanilla}
    for changes in ({}, *PARTS):
        name = ", ".join([PROMPTED, *(f"{key}={value}" for key, value in changes.items())])
        sides[name] = prompted | {"saliency_prompt": of_prompts | changes}
    return sides


def synthetic_batch(setting: Setting, feature_dim: int) -> dict[str, Any]:
    """A batch as the data loader gives it: noise for images, ellipses of all sizes for pseudo masks."""
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
            labels=torch.from_numpy(rng.integers(0, setting.classes, setting.instances)),
            masks=bitmaps,
            seed_features=torch.from_numpy(rng.standard_normal((setting.instances, feature_dim), np.float32)),
        )
        samples.append(sample)
    images = [torch.from_numpy(rng.integers(0, 256, (3, height, width), np.uint8)) for _ in samples]
    return {"inputs": images, "data_samples": samples}


class Step:
    """A model with its optimizer, as the schedule `pretrain` has it; called, it makes a training step on the batch."""

    def __init__(self, config: Mapping[str, Any], batch: Mapping[str, Any], setting: Setting) -> None:
        init_default_scope("mmdet")
        if not MMLogger.check_instance_created(__name__):  # MMEngine announces every parameter at INFO
            MMLogger.get_instance(__name__, log_level="WARNING")
        torch.manual_seed(0)
        self.model: Any = MODELS.build(dict(config))
        self.model.init_weights()
        self.model.to(setting.device).train()
        schedule = read_fragment("schedules", "pretrain")
        self.optimizer = build_optim_wrapper(self.model, schedule["optim_wrapper"])
        self.batch, self.setting = batch, setting

    def __call__(self) -> None:
        loss, _ = self.model.parse_losses(self.losses())
        self.optimizer.update_params(loss)

    def losses(self) -> dict[str, Tensor]:
        """The losses of the batch."""
        data = self.model.data_preprocessor(dict(self.batch), True)
        with self.autocast():
            return self.model(**data, mode="loss")

    @contextmanager
    def autocast(self) -> Iterator[None]:
        enabled = self.setting.precision == "bfloat16"
        with torch.autocast(self.setting.device, torch.bfloat16, enabled=enabled):
            yield


def measure_steps(setting: Setting, rounds: int) -> dict[str, Cost]:
    """Every variant's cost: memory of each alone, then times in turn, a step of each in every round."""
    sides = variants(setting)
    batch = synthetic_batch(setting, sides[PROMPTED]["saliency_prompt"]["feature_dim"])
    memory = {}
    for name, config in sides.items():
        memory[name] = peak_memory(partial(_train, config, batch, setting), setting.device)
    steps = {name: Step(config, batch, setting) for name, config in sides.items()}
    seconds = measure_in_turn(steps, setting.device, rounds)
    return {
        name: Cost(statistics.median(seconds[name]), ratio(seconds[name], seconds[VANILLA]), memory[name])
        for name in sides
    }


def _train(config: Any, batch: Any, setting: Setting) -> None:
    """Two steps: memory is at its peak in the second, when the optimizer has its state."""
    step = Step(config, batch, setting)
    for _ in range(2):
        step()


def total(losses: Mapping[str, Tensor]) -> Tensor:
    return torch.stack(list(losses.values())).sum()


def measure_losses(setting: Setting, rounds: int) -> dict[str, list[float]]:
    """Seconds of the loss side alone, of the plain port and of ours: targets, losses and the way back to the network.

    Both work on the same outputs of the network.
    """
    sides = variants(setting)
    step = Step(sides[VANILLA], synthetic_batch(setting, 1), setting)
    model = step.model
    data = model.data_preprocessor(dict(step.batch), True)
    images, samples = data["inputs"], data["data_samples"]
    with torch.no_grad(), step.autocast():
        initial = model.rpn_head(model.extract_feat(images))
        stages = model.roi_head(initial.features, initial.kernels, initial.mask_logits)
    initial = initial._replace(mask_logits=leaf(initial.mask_logits), seg_logits=leaf(initial.seg_logits))
    stages = [
        stage._replace(cls_logits=leaf(stage.cls_logits), mask_logits=leaf(stage.mask_logits)) for stage in stages
    ]
    weights = (model.cost_weights, model.loss_weights)
    height, width = initial.mask_logits.shape[-2:]

    def port() -> None:
        total(plain_losses(initial, stages, plain_instances(samples, images.device), *weights)).backward()

    def ours() -> None:
        targets = instance_targets(samples, (2 * height, 2 * width))
        total(knet_losses(initial, stages, targets, *weights)[0]).backward()

    return measure_in_turn({PORT: port, VANILLA: ours}, setting.device, rounds)


def leaf(output: Tensor) -> Tensor:
    return output.detach().requires_grad_()


def disagreement(setting: Setting) -> float:
    """The largest relative difference between the plain port's losses and ours."""
    sides = variants(setting)
    batch = synthetic_batch(setting, 1)
    with torch.no_grad():
        port, ours = (Step(sides[name], batch, setting).losses() for name in (PORT, VANILLA))
    return max(abs(float(port[name] / ours[name]) - 1) for name in ours)


def measure_in_turn(functions: Mapping[str, Callable[[], object]], device: str, rounds: int) -> dict[str, list[float]]:
    """Seconds of each function in every round; a round calls each once, and one more round warms up."""
    seconds: dict[str, list[float]] = {name: [] for name in functions}
    for _ in range(rounds + 1):
        for name, function in functions.items():
            synchronise(device)
            start = time.perf_counter()
            function()
            synchronise(device)
            seconds[name].append(time.perf_counter() - start)
    return {name: each[1:] for name, each in seconds.items()}


def synchronise(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def ratio(seconds: Sequence[float], others: Sequence[float]) -> float:
    """The median over rounds: what slows the machine for a while slows both sides of a round."""
    return statistics.median(mine / other for mine, other in zip(seconds, others, strict=True))
