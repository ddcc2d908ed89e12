"""A training step with MMCV's compiled operators beside the same step with those in PyTorch."""

from importlib import import_module
from types import ModuleType

import click
import torch
from mmengine.config import ConfigDict

from pipelines.options import POSITIVE, Command, device_option
from stage1_proposals.common.errors import UserError
from stage1_proposals.common.system import choose_device
from stage2_training.config.compose import read_fragment, set_num_classes
from stage2_training.models import mmcv_operators, mmdet_fixes, timm_backbone  # noqa: F401 (registers the parts)
from tests.benchmarks.measuring import print_machine, print_values
from tests.benchmarks.training_speed import Setting, Step, measure_in_turn, ratio, synthetic_batch

USERS = ("nms", "roi_align", "focal_loss", "multi_scale_deform_attn")  # modules of mmcv.ops
SIZES = {"cpu": (2, (512, 384)), "cuda": (12, (1333, 800))}


@click.command(cls=Command)
@click.option(
    "--model",
    "models",
    multiple=True,
    help="configs/models/MODEL.py. Default: each small one on a CPU, each one of the paper on a GPU.",
)
@device_option
@click.option("--repeat", type=POSITIVE, default=10, help="Rounds; medians count.")
def command(models: tuple[str, ...], device: str | None, repeat: int) -> None:
    """A training step with MMCV's compiled operators beside the same step with those in PyTorch."""
    compiled = import_module("mmcv._ext")
    if compiled.nms is mmcv_operators.nms:
        raise UserError("MMCV's operators are not compiled here; run `make setup OPS=compiled` first")
    device = choose_device(device)
    print_machine(device)
    suffix = "" if device == "cuda" else "_lite0"
    for model in models or [f"{name}{suffix}" for name in ("knet", "mask2former", "queryinst", "mask_rcnn")]:
        print_values(compare_operators(model, device, compiled, repeat))


class StepWith(Step):
    """A training step for which MMCV's operators are those of `operators`."""

    operators: ModuleType

    def __call__(self) -> None:
        for name in USERS:
            import_module(f"mmcv.ops.{name}").ext_module = self.operators  # type: ignore[attr-defined]
        torch.manual_seed(0)  # Mask R-CNN samples boxes at random
        super().__call__()


def compare_operators(model: str, device: str, compiled: ModuleType, rounds: int) -> dict[str, str]:
    """Time of a step of a model with either, their ratio, and how well the losses of the first step agree."""
    batch_size, size = SIZES[device]
    setting = Setting(model, batch_size, size, device)
    config = ConfigDict(read_fragment("models", model)["model"])
    set_num_classes(config, 1)
    batch = synthetic_batch(setting, feature_dim=1)
    steps = {}
    for name, operators in {"compiled": compiled, "PyTorch": mmcv_operators}.items():
        steps[name] = StepWith(config, batch, setting)
        steps[name].operators = operators
    seconds = measure_in_turn(steps, device, rounds)
    theirs, ours = (torch.cat([p.detach().flatten() for p in step.model.parameters()]) for step in steps.values())
    return {
        "setting": f"{model}, batch {batch_size} of {size[0]} x {size[1]}",
        **{f"step, {name}": f"{1000 * sum(times) / len(times):.0f} ms" for name, times in seconds.items()},
        "PyTorch / compiled": f"{ratio(seconds['PyTorch'], seconds['compiled']):.3f}",
        "relative difference of the weights afterwards": f"{float((ours - theirs).norm() / theirs.norm()):.1e}",
    }
