"""The same run in one process and in two, in one pass a step and in several: the same losses, the same weights."""

import json
import math
import os
from collections.abc import Callable
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from mmdet.structures import DetDataSample
from mmdet.structures.mask import BitmapMasks
from mmengine.dist import is_distributed
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.runner import Runner
from mmengine.structures import InstanceData
from torch.utils.data import Dataset

import stage2_training.data
import stage2_training.engine.checkpoints
import stage2_training.engine.loop  # noqa: F401 (register what the config names)
from stage1_proposals.common.errors import UserError
from stage2_training.engine.divergence import check_finite

NUMBER = count()
PREPROCESSOR = {
    "type": "DetDataPreprocessor",
    "mean": [127.0] * 3,
    "std": [60.0] * 3,
    "pad_mask": True,
    "pad_size_divisor": 32,
}


class Images(Dataset):
    """Ready images with their samples."""

    def __init__(self, images: torch.Tensor, samples: list) -> None:
        self.images, self.samples = images, samples

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"inputs": self.images[index], "data_samples": self.samples[index]}


class Line(BaseModel):
    """A model whose loss is a mean over images, so that passes add up exactly."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(1, 1)

    def forward(self, inputs: list[torch.Tensor], data_samples: list, mode: str) -> dict[str, torch.Tensor]:
        features = torch.stack(inputs).float().mean((1, 2, 3))[:, None] / 100
        return {"loss_line": (self.linear(features) - 1).square().mean()}


class Watch(Hook):
    """Writes down every step's losses."""

    def __init__(self) -> None:
        self.losses: list[dict[str, float]] = []

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        self.losses.append({name: float(value) for name, value in outputs.items()})


def train(
    model: BaseModel,
    data: Dataset,
    directory: Path,
    images: int,
    total: int,
    amp: bool = False,
    clip: dict[str, float] | None = {"max_norm": 1.0},  # noqa: B006 (never changed)
) -> tuple[list[dict[str, float]], dict[str, torch.Tensor]]:
    """Two epochs with SGD: each step's losses, and the weights."""
    torch.save({"state_dict": model.state_dict()}, directory / f"start_{os.getpid()}.pth")
    watch = Watch()
    extra = {}
    if is_distributed():
        wrapper = {"type": "MMDistributedDataParallel", "broadcast_buffers": False, "device_ids": None}
        extra = {"launcher": "pytorch", "cfg": {"model_wrapper_cfg": wrapper}}
    runner = Runner(
        model,
        str(directory),
        train_dataloader={
            "dataset": data,
            "batch_size": images,
            "num_workers": 0,
            "sampler": {"type": "ResumableSampler", "shuffle": True},
        },
        train_cfg={"type": "ResumableEpochLoop", "max_epochs": 2, "total_batch": total},
        optim_wrapper={
            "type": "AccumulatingOptimWrapper",
            "optimizer": {"type": "SGD", "lr": 0.05},
            "clip_grad": clip,
            "amp": amp,
        },
        default_hooks={"checkpoint": {"type": "AtomicCheckpointHook", "interval": 1}},
        custom_hooks=[watch],
        randomness={"seed": 0},
        load_from=str(directory / f"start_{os.getpid()}.pth"),
        log_level="ERROR",
        default_scope="mmdet",
        experiment_name=f"processes_{next(NUMBER)}",
        **extra,
    )
    runner.train()
    trained = runner.model.module if is_distributed() else runner.model
    # Through a pipe, tensors would share memory with a process that has gone.
    return watch.losses, {name: value.numpy() for name, value in trained.state_dict().items()}


@pytest.fixture
def image_files(make_batch) -> Images:
    """Six images of one size with 2, 0, 3, 1, 1 and 4 instances: a step of four and one of two an epoch."""
    images, samples = make_batch([2, 0, 3, 1, 1, 4])
    for number, sample in enumerate(samples):
        sample.set_metainfo({"img_id": number, "img_path": f"{number}.jpg"})
    return Images((images * 40 + 127).clamp(0, 255).to(torch.uint8), samples)


def same(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert one.keys() == other.keys()
    for name, value in one.items():
        assert value == pytest.approx(other[name], rel=2e-4, abs=2e-6), name


@pytest.fixture
def saliency_prompt(build_knet) -> Callable[[], BaseModel]:
    settings = {"feature_dim": 5, "drop_prob": 0.0}
    return lambda: build_knet(type="SaliencyPromptKNet", saliency_prompt=settings, data_preprocessor=PREPROCESSOR)


def test_two_processes_train_as_one(saliency_prompt, image_files, in_processes, tmp_path):
    losses, weights = train(saliency_prompt(), image_files, tmp_path, images=4, total=4)
    assert len(losses) == 4
    shared = in_processes(2, lambda rank: train(saliency_prompt(), image_files, tmp_path, images=2, total=4))
    for step, alone in enumerate(losses):
        assert shared[0][0][step]["loss"] == shared[1][0][step]["loss"]  # what is logged is that of all
        same(alone, {name: (shared[0][0][step][name] + shared[1][0][step][name]) / 2 for name in alone})
    for _, theirs in shared:
        same(weights, theirs)
    start = saliency_prompt().state_dict()
    assert sum((weights[name] != start[name].numpy()).any() for name in weights) > 100


@pytest.mark.parametrize("images", [1, 2])
def test_passes_add_up_to_a_step(image_files, tmp_path, images):
    torch.manual_seed(0)
    model = Line()
    start = {name: value.clone() for name, value in model.state_dict().items()}
    losses, weights = train(model, image_files, tmp_path, images=4, total=4)
    model.load_state_dict(start)
    passes, theirs = train(model, image_files, tmp_path, images=images, total=4)
    assert len(passes) == len(losses) == 4
    for one, other in zip(losses, passes, strict=True):
        same(one, other)
    same(weights, theirs)


def test_processes_with_several_passes_add_up_too(image_files, in_processes, tmp_path):
    torch.manual_seed(0)
    state = Line().state_dict()

    def line() -> Line:
        model = Line()
        model.load_state_dict(state)
        return model

    losses, weights = train(line(), image_files, tmp_path, images=4, total=4)
    for theirs, trained in in_processes(2, lambda rank: train(line(), image_files, tmp_path, images=1, total=4)):
        assert [step["loss"] for step in theirs] == pytest.approx([step["loss"] for step in losses], rel=1e-5)
        same(weights, trained)


def test_mixed_precision_trains_on_any_device(saliency_prompt, image_files, tmp_path):
    exact, _ = train(saliency_prompt(), image_files, tmp_path, images=2, total=2)
    mixed, weights = train(saliency_prompt(), image_files, tmp_path, images=2, total=2, amp=True)
    assert mixed[0]["loss"] != exact[0]["loss"]
    assert mixed[0]["loss"] == pytest.approx(exact[0]["loss"], rel=0.02)
    assert all(value.dtype != torch.bfloat16 for value in map(torch.from_numpy, weights.values()))


class Diverges(Line):
    """Its loss is NaN from the image with 4 instances on."""

    def forward(self, inputs: list[torch.Tensor], data_samples: list, mode: str) -> dict[str, torch.Tensor]:
        losses = super().forward(inputs, data_samples, mode)
        if any(len(sample.gt_instances.labels) == 4 for sample in data_samples):
            losses["loss_line"] = losses["loss_line"] * math.nan
        return losses


def check_report(directory: Path, error: UserError) -> dict[str, Any]:
    """The message and the file agree, and no checkpoint is of the bad step or after."""
    report = json.loads((directory / "non_finite.json").read_text())
    (bad,) = [each for each in report["processes"] if each["losses"]["loss_line"] == "nan"]
    image_files = [image["img_id"] for image in bad["images"]]
    assert 5 in image_files
    assert {image["img_path"] for image in bad["images"]} == {f"{number}.jpg" for number in image_files}
    step = report["step"]
    shown = ", ".join(map(str, image_files))
    assert f"step {step}: loss_line is nan on the images with img_id {shown}; {directory}" in str(error)
    saved = sorted(int(path.stem.removeprefix("iter_")) for path in directory.glob("iter_*.pth"))
    assert saved == list(range(1, step))
    for number in saved:
        weights = torch.load(directory / f"iter_{number}.pth", weights_only=False)["state_dict"]
        assert all(value.isfinite().all() for value in weights.values())
    return report


def test_a_loss_that_is_not_finite_stops_the_run(image_files, tmp_path):
    with pytest.raises(UserError) as error:
        train(Diverges(), image_files, tmp_path, images=1, total=2)
    report = check_report(tmp_path, error.value)
    assert report["processes"][0]["losses"]["loss"] == report["processes"][0]["losses"]["grad_norm"] == "nan"


def test_a_loss_that_is_not_finite_in_one_process_stops_all(image_files, in_processes, tmp_path):
    first, second = in_processes(2, lambda rank: train(Diverges(), image_files, tmp_path, images=1, total=2))
    assert isinstance(first, UserError)
    assert str(first) == str(second)
    report = check_report(tmp_path, first)
    assert [each["process"] for each in report["processes"]] == [0, 1]


def test_the_report_names_a_faulty_target_before_it_advises_a_lower_learning_rate(tmp_path):
    """A box that lies at the border without height, as rotation left one, and a box of NaN."""

    def batch(*boxes: list[float]) -> dict[str, Any]:
        sample = DetDataSample(metainfo={"img_id": 7, "img_path": "7.jpg"})
        masks = BitmapMasks(np.ones((len(boxes), 4, 4), np.uint8), 4, 4)
        sample.gt_instances = InstanceData(bboxes=torch.tensor(boxes), masks=masks)
        return {"data_samples": [sample]}

    def message(*boxes: list[float]) -> str:
        runner = SimpleNamespace(work_dir=tmp_path, iter=125, message_hub=SimpleNamespace(log_scalars={}))
        losses = {"loss": torch.tensor(math.nan), "loss_bbox": torch.tensor(math.nan)}
        with pytest.raises(UserError, match=r"^step 126: loss_bbox is nan") as error:
            check_finite(runner, [batch(*boxes)], losses)
        return str(error.value)

    whole = [0.0, 0.0, 4.0, 4.0]
    assert "lower learning rate" in message(whole)
    flat = message(whole, [198.4, 0.0, 205.4, 0.0], [math.nan, 0.0, 1.0, 1.0])
    assert "learning rate" not in flat
    assert "image 7 (7.jpg) has a target with a box without area; its box is [198.4, 0.0, 205.4, 0.0]" in flat
    assert "one of 2 faulty targets" in flat
    (process,) = json.loads((tmp_path / "non_finite.json").read_text())["processes"]
    assert [each["fault"] for each in process["faulty_targets"]] == ["a box without area", "a box that is not finite"]


@pytest.mark.parametrize("clip", [None, {"max_norm": 1.0}])
def test_a_gradient_that_is_not_finite_stops_the_run_before_a_checkpoint(image_files, tmp_path, clip):
    class Steep(Line):
        """Its loss is 0, and the slope of a root there infinite."""

        def forward(self, inputs: list[torch.Tensor], data_samples: list, mode: str) -> dict[str, torch.Tensor]:
            return {"loss_line": (self.linear.weight * 0).abs().sum().sqrt()}

    with pytest.raises(UserError, match=r"^step 1: grad_norm is nan"):
        train(Steep(), image_files, tmp_path, images=2, total=2, clip=clip)
    assert not list(tmp_path.glob("iter_*.pth"))


def test_weights_that_are_not_finite_are_found_in_the_loss(saliency_prompt, image_files, tmp_path):
    """Matching, which comes before it, does not fail."""
    model = saliency_prompt()
    with torch.no_grad():
        model.rpn_head.loc_convs[0].conv.weight[0] = torch.nan
    with pytest.raises(UserError, match=r"^step 1: loss_rpn_mask is nan on the images with img_id \d, \d; "):
        train(model, image_files, tmp_path, images=2, total=2)
