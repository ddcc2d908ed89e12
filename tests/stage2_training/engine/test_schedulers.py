"""The learning rate at every step is that of MMEngine's schedules, with the length of the run written into them."""

from math import ceil

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from mmengine.registry import PARAM_SCHEDULERS

import stage2_training.engine  # noqa: F401 (registers the schedules)
from stage2_training.config.compose import read_fragment

# Schedules of `configs/schedules`, the epochs that they are usually followed for, steps of warm-up and milestones.
SCHEDULES = {
    "pretrain": (12, 1000, [8, 11]),
    "pretrain_demo": (6, 20, [5]),
    "finetune": (96, 100, [72, 88]),
    "finetune_cityscapes": (24, 100, [16, 22]),
    "finetune_demo": (20, 20, [15, 18]),
}


def rates(schedules: list[dict], epochs: int, epoch_length: int) -> list[float]:
    """The learning rate at each step of a run, of 1, as MMEngine's runner builds and steps the schedules."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    built = []
    for schedule in schedules:
        end = epochs if schedule.get("by_epoch", True) else epochs * epoch_length
        default = {"optimizer": optimizer, "epoch_length": epoch_length}
        built.append(PARAM_SCHEDULERS.build({"end": end, **schedule}, default_args=default))
    followed = []
    for _ in range(epochs * epoch_length):
        followed.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        for schedule in built:
            schedule.step()
    return followed


def plain(usual_epochs: int, warm_up: int, milestones: list[int], epochs: int, epoch_length: int) -> list[dict]:
    """MMEngine's own schedules: warm-up of a tenth of the run at most, milestones in proportion to the epochs."""
    scaled = [max(1, round(milestone * epochs / usual_epochs)) for milestone in milestones]
    end = min(warm_up, max(2, epochs * epoch_length // 10))
    return [
        {"type": "LinearLR", "start_factor": 0.001, "by_epoch": False, "begin": 0, "end": end},
        {"type": "MultiStepLR", "gamma": 0.1, "milestones": scaled, "convert_to_iter_based": True, "end": epochs},
    ]


@pytest.mark.parametrize("name", SCHEDULES)
@settings(max_examples=25, deadline=None)
@given(st.integers(1, 110), st.integers(1, 1500), st.sampled_from([1, 8, 32, 96]))
@example(epochs=6, images=9600, total_batch=96)  # 11 of 12 epochs is 5.5 of 6
@example(epochs=12, images=80_000, total_batch=96)  # the whole warm-up of pre-training
@example(epochs=1, images=1, total_batch=1)
def test_schedules_follow_the_run(name: str, epochs: int, images: int, total_batch: int) -> None:
    epoch_length = min(ceil(images / total_batch), ceil(12_000 / epochs))
    expected = plain(*SCHEDULES[name], epochs, epoch_length)
    schedules = read_fragment("schedules", name)["param_scheduler"]
    assert rates(schedules, epochs, epoch_length) == rates(expected, epochs, epoch_length)


def test_warm_up_reaches_the_full_rate_in_a_run_of_few_steps() -> None:
    """MMEngine's warm-up of one step would last for ever."""
    warm_up = [{"type": "ShortWarmUpLR", "steps": 100, "start_factor": 0.001, "by_epoch": False}]
    for steps in (3, 5, 30):
        followed = rates(warm_up, 1, steps)
        assert followed[0] == pytest.approx(0.001)
        assert followed[max(2, steps // 10) - 1 :] == pytest.approx([1.0] * (steps - max(2, steps // 10) + 1))


def test_a_larger_share_gives_a_longer_warm_up() -> None:
    warm_up = {"type": "ShortWarmUpLR", "steps": 70, "start_factor": 0.001, "by_epoch": False, "max_share": 1.0}
    assert rates([warm_up], 1, 100).index(pytest.approx(1.0)) == 69
