"""The settings of Saliency Prompt, the same for every detector. Imports no torch, for commands that show them."""

import math
from dataclasses import dataclass

from stage1_proposals.common.errors import UserError

MATCHINGS = ("cosine", "sequential", "random", "none")
KERNELS = ("initial", "object")


@dataclass(frozen=True)
class SaliencyPromptSettings:
    """How prompts are made and matched, and how much the kernels are supervised.

    Args:
        feature_dim: D, length of the seed features.
        matching: which prompt a kernel gets: `cosine` (Eq. 6-8), `sequential`, `random`, or `none`.
        match_on: what `cosine` compares K-Net's prompts with: the learned kernels (`initial`, the paper's text)
            or the per-image ones (`object`).
        add_to: which of K-Net's kernels get them: the learned ones, before they make their first masks
            (`initial`, Eq. 8), or the per-image ones that enter the first update stage (`object`).
        rescale: give each prompt the length of the kernel that it was compared with; Eq. 8 leaves it its own.
        level: FPN level that prompts are read from; -1 is the coarsest.
        detach: keep the gradient of the prompts out of the FPN.
        drop_prob: probability that a kernel gets no prompt, in training.
        kernel_loss_weight: of the kernel supervision (Eq. 9).

    Raises:
        UserError: a setting of another type or out of its range.
    """

    feature_dim: int
    matching: str = "cosine"
    match_on: str = "initial"
    add_to: str = "initial"
    rescale: bool = False
    level: int = -1
    detach: bool = True
    drop_prob: float = 0.1
    kernel_loss_weight: float = 1.0

    def __post_init__(self) -> None:
        for name, sound, expected in (
            ("feature_dim", _is_integer(self.feature_dim) and self.feature_dim > 0, "an integer from 1 up"),
            ("matching", self.matching in MATCHINGS, f"one of {', '.join(MATCHINGS)}"),
            ("match_on", self.match_on in KERNELS, f"one of {', '.join(KERNELS)}"),
            ("add_to", self.add_to in KERNELS, f"one of {', '.join(KERNELS)}"),
            ("rescale", isinstance(self.rescale, bool), "True or False"),
            ("level", _is_integer(self.level), "an integer"),
            ("detach", isinstance(self.detach, bool), "True or False"),
            ("drop_prob", _is_number(self.drop_prob) and 0 <= self.drop_prob <= 1, "a probability from 0 to 1"),
            (
                "kernel_loss_weight",
                _is_number(self.kernel_loss_weight) and 0 <= self.kernel_loss_weight < math.inf,
                "a number from 0 up",
            ),
        ):
            if not sound:
                raise UserError(f"saliency_prompt.{name} {getattr(self, name)!r}: use {expected}")

    def check_level(self, levels: int) -> None:
        """Check `level` against the number of a detector's FPN levels.

        Raises:
            UserError: there is no such level.
        """
        if not -levels <= self.level < levels:
            raise UserError(f"saliency_prompt.level {self.level}: use one from {-levels} to {levels - 1}")


def _is_integer(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: object) -> bool:
    return _is_integer(value) or isinstance(value, float)
