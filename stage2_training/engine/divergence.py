"""Stopping a run whose losses have become NaN or infinite, in all processes, with word of what it happened on."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import mmengine.dist
import numpy as np
from mmengine.runner import Runner
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from stage1_proposals.common.errors import UserError
from stage1_proposals.common.files import write_json, writing
from stage2_training.runs.work_dir import NON_FINITE


def mean_or_stop(runner: Runner, batches: Sequence[Mapping[str, Any]], losses: Mapping[str, Tensor]) -> Tensor:
    """The step's total loss, averaged over processes, once it and the gradient's norm are known to be finite.

    Called after the optimizer's step and before any checkpoint of it. The gradient is the same in every process, so
    one number is exchanged; it is waited for where the loss is read for the log anyway.

    Args:
        runner: in the middle of a step.
        batches: of the step, with their `data_samples`.
        losses: scalars by name, in this process; `loss` is their sum.

    Raises:
        UserError: NaN or Inf, in whichever process: raised in all, after writing `non_finite.json`.
    """
    loss = losses["loss"].detach().clone()
    mmengine.dist.all_reduce(loss, op="mean")
    norm = runner.message_hub.log_scalars.get("train/grad_norm")
    norm = {} if norm is None else {"grad_norm": norm.current()}
    if all(map(math.isfinite, [float(loss), *norm.values()])):
        return loss
    values = {name: float(value) for name, value in losses.items()} | norm
    here = {"process": mmengine.dist.get_rank(), "losses": values, "images": _images(batches)}
    raise _reported(Path(runner.work_dir) / NON_FINITE, runner.iter + 1, mmengine.dist.all_gather_object(here))


def _images(batches: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    samples = (sample for batch in batches for sample in batch.get("data_samples", ()))
    return [{key: sample.metainfo.get(key) for key in ("img_id", "img_path")} for sample in samples]


def _reported(path: Path, step: int, processes: list[dict[str, Any]]) -> UserError:
    """Write the report in the first process; the error to raise in all."""
    blamed = [each for each in processes if _bad(each["losses"], ("grad_norm",))] or processes
    # A part of the loss says more than the sum, and the sum more than the gradient.
    name = min(_bad(blamed[0]["losses"]), key=("loss", "grad_norm").__contains__, default="loss")
    value = blamed[0]["losses"][name]
    ids = [image["img_id"] for each in blamed for image in each["images"]]
    if mmengine.dist.is_main_process():
        for each in processes:  # JSON has no word for them
            each["losses"] |= {name: str(value) for name, value in _bad(each["losses"]).items()}
        with writing(path):
            write_json(path, {"step": step, "processes": processes})
    mmengine.dist.barrier()
    shown = ", ".join(map(str, ids[:8])) + (f" and {len(ids) - 8} more" if len(ids) > 8 else "")
    return UserError(
        f"step {step}: {name} is {value} on the images with img_id {shown}; {path} has all paths and losses. No "
        f"checkpoint was written since: look at the images, or begin anew in another --work-dir with a lower learning "
        f"rate (optim_wrapper.optimizer.lr), a longer warm-up or without --amp"
    )


def _bad(losses: Mapping[str, float], but: Sequence[str] = ()) -> dict[str, float]:
    return {name: value for name, value in losses.items() if name not in but and not math.isfinite(value)}


def match_despite_nan() -> None:
    """Let MMDetection's Hungarian matching give some answer for costs that are not numbers, instead of an error.

    The loss, made of the same predictions, is not a number either; there it can be told on which images, and in every
    process, while an error in one of them would leave the others waiting.
    """
    from mmdet.models.task_modules.assigners import hungarian_assigner

    hungarian_assigner.linear_sum_assignment = lambda cost: linear_sum_assignment(np.nan_to_num(cost))
