"""The settings of Saliency Prompt, the same for every detector."""

from dataclasses import dataclass

from stage1_proposals.errors import UserError

MATCHINGS = ("cosine", "sequential", "random", "none")
REFERENCES = ("initial", "object")


@dataclass(frozen=True)
class SaliencyPromptSettings:
    """How prompts are made and matched, and how much the kernels are supervised.

    Args:
        feature_dim: D, length of the seed features.
        matching: which prompt a kernel gets: `cosine` (Eq. 6-8), `sequential`, `random`, or `none`.
        match_on: what `cosine` compares prompts with: the learned kernels (`initial`, the paper's text) or
            the per-image ones (`object`).
        level: FPN level that prompts are read from; -1 is the coarsest.
        detach: keep the gradient of the prompts out of the FPN.
        drop_prob: probability that a kernel gets no prompt, in training.
        kernel_loss_weight: of the kernel supervision (Eq. 9).

    Raises:
        UserError: a setting out of its range.
    """

    feature_dim: int
    matching: str = "cosine"
    match_on: str = "initial"
    level: int = -1
    detach: bool = True
    drop_prob: float = 0.1
    kernel_loss_weight: float = 1.0

    def __post_init__(self) -> None:
        if self.matching not in MATCHINGS:
            raise UserError(f"saliency_prompt.matching {self.matching!r}: use one of {', '.join(MATCHINGS)}")
        if self.match_on not in REFERENCES:
            raise UserError(f"saliency_prompt.match_on {self.match_on!r}: use one of {', '.join(REFERENCES)}")
        if not 0 <= self.drop_prob <= 1:
            raise UserError(f"saliency_prompt.drop_prob {self.drop_prob}: use a probability from 0 to 1")
