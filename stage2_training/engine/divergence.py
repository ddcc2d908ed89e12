"""Stops a run whose loss or gradient is NaN or infinite, in all processes, and reports the images it happened on.

The batch's targets are looked at first: an empty or non-finite one is the cause, whatever the learning rate.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import mmengine.dist
import numpy as np
from mmengine.runner import Runner
from torch import Tensor

from stage1_proposals.common.errors import UserError
from stage1_proposals.common.files import write_json, writing
from stage2_training.engine.distributed import is_rank_zero

NON_FINITE = "non_finite.json"


def check_finite(runner: Runner, batches: Sequence[Mapping[str, Any]], losses: Mapping[str, Tensor]) -> Tensor:
    """The step's total loss, averaged over processes, once it and the gradient's norm are known to be finite.

    Called after the optimizer's step and before a checkpoint of it is written. The gradient is the same in every
    process, so one number is exchanged. Waiting for it costs nothing: the log reads the loss anyway.

    Args:
        runner: in the middle of a step.
        batches: of the step, with their `data_samples`.
        losses: scalars by name, in this process; `loss` is their sum.

    Raises:
        UserError: NaN or infinity in any process; raised in all of them, after writing `non_finite.json`.
    """
    loss = losses["loss"].detach().clone()
    mmengine.dist.all_reduce(loss, op="mean")
    norm = runner.message_hub.log_scalars.get("train/grad_norm")
    norm = {} if norm is None else {"grad_norm": norm.current()}
    if all(map(math.isfinite, [float(loss), *norm.values()])):
        return loss
    report = {
        "process": mmengine.dist.get_rank(),
        "losses": {name: float(value) for name, value in losses.items()} | norm,
        "images": _images(batches),
        "faulty_targets": _faulty_targets(batches),
    }
    raise write_report(Path(runner.work_dir) / NON_FINITE, runner.iter + 1, mmengine.dist.all_gather_object(report))


def _images(batches: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    return [_image(sample) for sample in _samples(batches)]


def _samples(batches: Sequence[Mapping[str, Any]]) -> Iterator[Any]:
    return (sample for batch in batches for sample in batch.get("data_samples", ()))


def _image(sample: Any) -> dict[str, Any]:
    return {key: sample.metainfo.get(key) for key in ("img_id", "img_path")}


def _faulty_targets(batches: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The instances from which no finite loss can be expected: `img_id`, `img_path`, `fault` and `box` of each."""
    found = []
    for sample in _samples(batches):
        instances = sample.get("gt_instances")
        if instances is None or "bboxes" not in instances:
            continue
        boxes = getattr(instances.bboxes, "tensor", instances.bboxes).cpu().numpy()
        width, height = (boxes[:, 2:] - boxes[:, :2]).T
        faults = {"a box that is not finite": ~np.isfinite(boxes).all(axis=1)}
        faults["a box without area"] = width * height <= 0
        if "masks" in instances:
            faults["a mask without pixels"] = instances.masks.areas == 0
        if "seed_features" in instances:
            faults["a seed feature that is not finite"] = ~instances.seed_features.isfinite().all(dim=1).cpu().numpy()
        for row, box in enumerate(boxes):
            fault = next((name for name, is_faulty in faults.items() if is_faulty[row]), None)
            if fault is not None:
                found.append({**_image(sample), "fault": fault, "box": [f"{side:.1f}" for side in box]})
    return found


def write_report(path: Path, step: int, processes: list[dict[str, Any]]) -> UserError:
    """Write the processes' reports to a file, in the first process, and return the error to raise in all."""
    diverged = [report for report in processes if _non_finite(report["losses"], ignore=("grad_norm",))] or processes
    # A single loss says more than their sum, and the sum more than the gradient.
    names = _non_finite(diverged[0]["losses"])
    name = min(names, key=("loss", "grad_norm").__contains__, default="loss")
    value = diverged[0]["losses"][name]
    ids = [image["img_id"] for report in diverged for image in report["images"]]
    if is_rank_zero():
        for report in processes:  # JSON has neither NaN nor infinity
            report["losses"] |= {name: str(value) for name, value in _non_finite(report["losses"]).items()}
        with writing(path):
            write_json(path, {"step": step, "processes": processes})
    mmengine.dist.barrier()
    faulty_targets = [target for report in processes for target in report["faulty_targets"]]
    shown = ", ".join(map(str, ids[:8])) + (f" and {len(ids) - 8} more" if len(ids) > 8 else "")
    return UserError(
        f"step {step}: {name} is {value} on the images with img_id {shown}; {path} has all paths and losses. No "
        f"checkpoint was written since: {_advice(faulty_targets)}"
    )


def _advice(faulty_targets: Sequence[Mapping[str, Any]]) -> str:
    if not faulty_targets:
        return (
            "no target of the batch is empty or non-finite, so look at the images, or start a new run in another "
            "--work-dir with a lower learning rate (optim_wrapper.optimizer.lr), a longer warm-up or without --amp"
        )
    first = faulty_targets[0]
    others = f" and is one of {len(faulty_targets)} faulty targets" if len(faulty_targets) > 1 else ""
    return (
        f"image {first['img_id']} ({first['img_path']}) has a target with {first['fault']}; its box is "
        f"[{', '.join(first['box'])}] in pixels of the resized image{others}: correct the labels, or let the pipeline "
        f"of the schedule end in BoxesFromMasks, which drops empty instances"
    )


def _non_finite(losses: Mapping[str, float], ignore: Sequence[str] = ()) -> dict[str, float]:
    return {name: value for name, value in losses.items() if name not in ignore and not math.isfinite(value)}
