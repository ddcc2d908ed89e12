"""A training step of K-Net and of Saliency Prompt beside a port of the official K-Net's losses."""

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import click
import numpy as np
import torch
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmdet.structures.mask import BitmapMasks
from mmengine.logging import MMLogger
from mmengine.optim import build_optim_wrapper
from mmengine.registry import init_default_scope
from mmengine.structures import InstanceData
from torch import Tensor

from pipelines.options import POSITIVE, Command, device_option
from stage1_proposals.common.errors import UserError
from stage1_proposals.common.system import choose_device
from stage2_training.config.compose import read_fragment, read_prompt_variant, set_num_classes
from stage2_training.engine import optimizer  # noqa: F401 (registers the schedule's optimizer wrapper)
from stage2_training.saliency_prompt import detectors  # noqa: F401 (registers the models)
from tests.benchmarks.measuring import print_machine, print_values, synchronize
from tests.reference.plain_knet import PlainKNet

INSTANCES = 20  # per image
REFERENCE, VANILLA, PROMPTED = "reference", "vanilla", "Saliency Prompt"


@dataclass(frozen=True)
class Setting:
    """What is trained on what.

    Attributes:
        model: name of a K-Net in its pre-training form; one class.
        size: width and height of the images, in pixels.
    """

    model: str
    batch_size: int
    size: tuple[int, int]
    device: str


@click.command(cls=Command)
@click.option("--model", help="configs/pretraining/MODEL.py of a K-Net. Default: knet on a GPU, else knet_lite0.")
@click.option("--batch-size", type=POSITIVE, help="Images. Default: 12 on a GPU, else 4.")
@click.option(
    "--size",
    type=click.IntRange(min=32),
    nargs=2,
    metavar="WIDTH HEIGHT",
    help="Of the images, in pixels. Default: 1333 800 on a GPU, else 512 384.",
)
@device_option
@click.option("--repeat", type=POSITIVE, default=10, help="Rounds; medians count.")
def command(**settings: Any) -> None:
    """A training step of K-Net and of Saliency Prompt beside a port of the official K-Net's losses."""
    main(**settings)


def main(
    model: str | None, batch_size: int | None, size: tuple[int, int] | None, device: str | None, repeat: int
) -> None:
    """Print the comparison; the arguments are the options of `bench training`."""
    device = choose_device(device)
    on_gpu = device == "cuda"
    setting = Setting(
        model=model or ("knet" if on_gpu else "knet_lite0"),
        batch_size=batch_size or (12 if on_gpu else 4),
        size=size or ((1333, 800) if on_gpu else (512, 384)),
        device=device,
    )
    print_machine(device)
    print_values(compare_steps(setting, repeat))


def variants(setting: Setting) -> dict[str, dict[str, Any]]:
    """Model configs of the reference, of vanilla K-Net and of Saliency Prompt.

    Raises:
        UserError: the model is no K-Net.
    """
    prompted = read_prompt_variant(setting.model)["model"]
    if prompted["type"] != "SaliencyPromptKNet":
        raise UserError(
            f"model {setting.model}: is a {prompted['type']}; the reference is a K-Net; choose one with --model"
        )
    set_num_classes(prompted, 1)
    vanilla = {name: value for name, value in prompted.items() if name != "saliency_prompt"} | {"type": "KNet"}
    prompt_settings = {"feature_dim": vanilla["neck"]["in_channels"][-1], **prompted["saliency_prompt"]}
    return {
        REFERENCE: vanilla | {"type": PlainKNet},
        VANILLA: vanilla,
        PROMPTED: prompted | {"saliency_prompt": prompt_settings},
    }


def synthetic_batch(setting: Setting, feature_dim: int) -> dict[str, Any]:
    """A batch as the data loader returns it: noise for images, ellipses of all sizes for pseudo masks."""
    rng = np.random.default_rng(0)
    width, height = setting.size
    y, x = np.ogrid[:height, :width]
    samples = []
    for _ in range(setting.batch_size):
        masks = np.zeros((INSTANCES, height, width), np.uint8)
        for mask in masks:
            centre_y, centre_x = rng.uniform(0, height), rng.uniform(0, width)
            radius_y, radius_x = np.exp(rng.uniform(np.log(0.03), np.log(0.5), 2)) * (height, width)
            mask[:] = ((y - centre_y) / radius_y) ** 2 + ((x - centre_x) / radius_x) ** 2 <= 1
            mask[int(centre_y), int(centre_x)] = 1
        bitmaps = BitmapMasks(masks, height, width)
        sample = DetDataSample(metainfo={"img_shape": (height, width), "ori_shape": (height, width)})
        sample.gt_instances = InstanceData(
            bboxes=bitmaps.get_bboxes("hbox").tensor,
            labels=torch.zeros(INSTANCES, dtype=torch.long),
            masks=bitmaps,
            seed_features=torch.from_numpy(rng.standard_normal((INSTANCES, feature_dim), np.float32)),
        )
        samples.append(sample)
    images = [torch.from_numpy(rng.integers(0, 256, (3, height, width), np.uint8)) for _ in samples]
    return {"inputs": images, "data_samples": samples}


class Step:
    """A model with the optimizer of the schedule `pretrain`; called, it takes a training step on the batch."""

    def __init__(
        self, config: Mapping[str, Any], batch: Mapping[str, Any], setting: Setting, amp: bool = False
    ) -> None:
        init_default_scope("mmdet")
        if not MMLogger.check_instance_created(__name__):  # MMEngine logs every parameter at INFO
            MMLogger.get_instance(__name__, log_level="WARNING")
        torch.manual_seed(0)
        self.model: Any = MODELS.build(dict(config))
        self.model.init_weights()
        self.model.to(setting.device).train()
        schedule = read_fragment("schedules", "pretrain")
        self.optimizer = build_optim_wrapper(self.model, {**schedule["optim_wrapper"], "amp": amp})
        self.batch = batch

    def __call__(self) -> None:
        with self.optimizer.optim_context(self.model):
            loss, _ = self.model.parse_losses(self.losses())
        self.optimizer.update_params(loss)

    def losses(self) -> dict[str, Tensor]:
        data = self.model.data_preprocessor(dict(self.batch), True)
        return self.model(**data, mode="loss")


def compare_steps(setting: Setting, rounds: int) -> dict[str, str]:
    """Time of a step of each variant, ratios (medians over rounds), and how well the losses agree."""
    configs = variants(setting)
    batch = synthetic_batch(setting, configs[PROMPTED]["saliency_prompt"]["feature_dim"])
    steps = {name: Step(config, batch, setting) for name, config in configs.items()}
    with torch.no_grad():
        reference, ours = (steps[name].losses() for name in (REFERENCE, VANILLA))
    difference = max(abs(float(reference[name] / ours[name]) - 1) for name in ours)
    seconds = measure_in_turn(steps, setting.device, rounds)
    width, height = setting.size
    return {
        "setting": f"{setting.model}, batch {setting.batch_size} of {width} x {height} with {INSTANCES} masks each",
        **{f"step, {name}": f"{1000 * statistics.median(times):.0f} ms" for name, times in seconds.items()},
        f"{REFERENCE} / {VANILLA}": f"{ratio(seconds[REFERENCE], seconds[VANILLA]):.3f}",
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
