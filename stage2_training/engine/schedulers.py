"""Learning-rate schedules that follow the length of the run, whatever the dataset, total batch and `--epochs`.

Their configs give no `end`: MMEngine's runner fills it in, with the run's steps or epochs. Where a schedule or
`--cfg-options` gives an `end` or milestones of its own, `config/overrides.py` uses MMEngine's own schedules instead.
"""

from collections.abc import Sequence
from typing import Any

from mmengine.optim import LinearLR, MultiStepLR
from mmengine.registry import PARAM_SCHEDULERS


@PARAM_SCHEDULERS.register_module()
class ShortWarmUpLR(LinearLR):
    """Linear warm-up over a number of steps, shortened in a short run, which it would otherwise fill.

    Args:
        optimizer: optimizer or optimizer wrapper.
        steps: optimizer steps of warm-up.
        end: steps of the whole run.
        max_share: of the run that warm-up may take. It takes at least 2 steps, because MMEngine's schedule of a single
            step never reaches the full learning rate.
        kwargs: further arguments of `LinearLR`; `by_epoch` must be False.
    """

    def __init__(self, optimizer: Any, *, steps: int, end: int, max_share: float = 0.1, **kwargs: Any) -> None:
        super().__init__(optimizer, end=min(steps, max(2, int(max_share * end))), **kwargs)


@PARAM_SCHEDULERS.register_module()
class ScaledMultiStepLR(MultiStepLR):
    """MMEngine's `MultiStepLR` whose milestones move in proportion to the number of epochs.

    Milestones [8, 11] of 12 epochs are [16, 22] in a run of 24. Needs `convert_to_iter_based=True`.
    """

    @classmethod
    def build_iter_from_epoch(
        cls, *args: Any, milestones: Sequence[int], of_epochs: int, end: int, **kwargs: Any
    ) -> "ScaledMultiStepLR":
        """Build the schedule, which counts steps.

        Args:
            args, kwargs: those of `MultiStepLR.build_iter_from_epoch`.
            milestones: epochs after which the learning rate drops, in a run of `of_epochs` epochs.
            of_epochs: length of that run.
            end: epochs of this run.
        """
        scaled = scale_milestones(milestones, end, of_epochs)
        schedule: ScaledMultiStepLR = super().build_iter_from_epoch(*args, milestones=scaled, end=end, **kwargs)
        return schedule


def scale_milestones(milestones: Sequence[int], epochs: int, of_epochs: int) -> list[int]:
    """Milestones of a run of `of_epochs` epochs, moved in proportion to a run of `epochs`; at least 1."""
    return [max(1, round(milestone * epochs / of_epochs)) for milestone in milestones]
