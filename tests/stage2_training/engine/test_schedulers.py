"""Schedules that follow the length of a run are MMEngine's own with that length written into them."""

from functools import cache
from math import ceil

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from mmengine.registry import PARAM_SCHEDULERS

import stage2_training.engine.schedulers  # noqa: F401 (registers the schedules)
from stage2_training.config.compose import finetuning_config, read_fragment
from stage2_training.config.overrides import Overrides

# Schedules of `configs/schedules`, the epochs that they are usually followed for, steps of warm-up and milestones.
SCHEDULES = {
    "pretrain": (12, 1000, [8, 11]),
    "pretrain_demo": (6, 20, [5]),
    "finetune": (96, 100, [72, 88]),
    "finetune_cityscapes": (24, 100, [16, 22]),
    "finetune_demo": (20, 20, [15, 18]),
}


@cache
def fragment(name: str) -> dict:
    return read_fragment("schedules", name)


def build(schedules: list[dict], epochs: int, epoch_length: int) -> tuple[torch.optim.Optimizer, list]:
    """An optimizer of learning rate 1 and its schedules, as MMEngine's runner builds them."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    built = []
    for schedule in schedules:
        end = epochs if schedule.get("by_epoch", True) else epochs * epoch_length
        default = {"optimizer": optimizer, "epoch_length": epoch_length}
        built.append(PARAM_SCHEDULERS.build({"end": end, **schedule}, default_args=default))
    return optimizer, built


def rates(schedules: list[dict], epochs: int, epoch_length: int) -> list[float]:
    """The learning rate at each step of a run."""
    optimizer, built = build(schedules, epochs, epoch_length)
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
@settings(deadline=None)
@given(epochs=st.integers(1, 200), images=st.integers(1, 130_000), total_batch=st.sampled_from([1, 8, 32, 96]))
@example(epochs=6, images=9600, total_batch=96)  # 11 of 12 epochs is 5.5 of 6
@example(epochs=12, images=80_000, total_batch=96)  # the whole warm-up of pre-training
@example(epochs=1, images=1, total_batch=1)
def test_schedules_follow_the_run(name: str, epochs: int, images: int, total_batch: int) -> None:
    epoch_length = ceil(images / total_batch)
    _, expected = build(plain(*SCHEDULES[name], epochs, epoch_length), epochs, epoch_length)
    _, found = build(fragment(name)["param_scheduler"], epochs, epoch_length)
    assert [schedule.state_dict() for schedule in found] == [schedule.state_dict() for schedule in expected]


@pytest.mark.parametrize(("epochs", "epoch_length"), [(1, 1), (2, 3), (6, 13), (20, 8)])
def test_the_learning_rate_is_that_of_mmengines_schedules(epochs: int, epoch_length: int) -> None:
    expected = plain(*SCHEDULES["finetune_demo"], epochs, epoch_length)
    schedules = fragment("finetune_demo")["param_scheduler"]
    assert rates(schedules, epochs, epoch_length) == rates(expected, epochs, epoch_length)


def test_warm_up_reaches_the_full_rate_in_a_run_of_few_steps() -> None:
    """MMEngine's warm-up of one step would last for ever."""
    warm_up = [{"type": "ShortWarmUpLR", "steps": 100, "start_factor": 0.001, "by_epoch": False}]
    for steps in (3, 5, 30):
        followed = rates(warm_up, 1, steps)
        assert followed[0] == pytest.approx(0.001)
        assert followed[max(2, steps // 10) - 1 :] == pytest.approx([1.0] * (steps - max(2, steps // 10) + 1))


def test_an_explicit_end_or_milestones_mean_what_they_mean_in_mmengine() -> None:
    """`--cfg-options` set them; `end` is a schedule's own end, not the run's, and milestones are not scaled."""
    options = ["param_scheduler.0.end=50", "param_scheduler.1.milestones=[40]"]
    config = finetuning_config("knet", "ctw1500", overrides=Overrides(cfg_options=options))
    warm_up = {"type": "LinearLR", "start_factor": 0.001, "by_epoch": False, "begin": 0, "end": 50}
    drop = {"type": "MultiStepLR", "gamma": 0.1, "milestones": [40], "convert_to_iter_based": True, "end": 96}
    assert rates(config.param_scheduler, 96, 10) == rates([warm_up, drop], 96, 10)

    # MMEngine's schedule of milestones stops at its end.
    options = ["param_scheduler.1.end=80"]
    config = finetuning_config("knet", "ctw1500", overrides=Overrides(cfg_options=options))
    _, (_, built) = build(config.param_scheduler, 96, 10)
    _, (expected,) = build([{**drop, "milestones": [72, 88], "end": 80}], 96, 10)
    state, expected_state = built.state_dict(), expected.state_dict()
    assert [state[key] for key in ("milestones", "end")] == [expected_state[key] for key in ("milestones", "end")]


def test_milestones_of_another_length_of_run_are_scaled() -> None:
    options = ["param_scheduler.1.milestones=[40]", "param_scheduler.1.of_epochs=48"]
    config = finetuning_config("knet", "ctw1500", overrides=Overrides(cfg_options=options))
    _, (_, built) = build(config.param_scheduler, 96, 10)
    assert built.state_dict()["milestones"] == {800: 1}


def test_a_larger_share_gives_a_longer_warm_up() -> None:
    warm_up = {"type": "ShortWarmUpLR", "steps": 70, "start_factor": 0.001, "by_epoch": False, "max_share": 1.0}
    assert rates([warm_up], 1, 100).index(pytest.approx(1.0)) == 69
