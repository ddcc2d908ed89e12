"""What a model in pre-training makes of its prompts: its losses with them, with others, and without."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from mmdet.structures import DetDataSample
from torch import Tensor

from stage1_proposals.common.errors import UserError
from stage2_training.knet.assignment import Assignment
from stage2_training.saliency_prompt.mixin import PromptMatch, SaliencyPromptMixin
from stage2_training.saliency_prompt.prompts import Prompts

OWN, OTHERS, NONE = "its own", "another image's", "none"


class PromptUse(NamedTuple):
    """Means over batches.

    Attributes:
        images: how many were looked at.
        losses: by the loss's name, then by what each query got: the prompt that it matches, one of another image of
            the batch in its place, or nothing. Where the three are alike, prompts are not read.
        length: L2 norm of what was added to a query, divided by that of the query; the median over queries that are
            not zero, 0 where all are.
        hits: of each stage or layer: the share of instances whose matched query had that very instance's prompt.
        chance: what `hits` would be, had every query a prompt of its image at random.
    """

    images: int
    losses: dict[str, dict[str, float]]
    length: float
    hits: list[float]
    chance: float


@torch.no_grad()
def prompt_use(model: Any, batches: Iterable[tuple[Tensor, Sequence[DetDataSample]]]) -> PromptUse:
    """Measure it, in training mode but for the dropping of prompts.

    Where a batch has one image with prompts alone, another image's are its own.

    Args:
        model: with `SaliencyPromptMixin`, and prompts that are not switched off; left as it was.
        batches: images (B, 3, H, W) and samples with `gt_instances`; of them all, one instance at least.

    Raises:
        UserError: there is none.
    """
    losses: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    hits: dict[int, list[bool]] = defaultdict(list)
    lengths: list[float] = []
    chances: list[float] = []
    image_count = 0
    training, settings = model.training, model.settings
    model.train()
    model.settings = replace(settings, drop_prob=0.0)
    try:
        for number, (images, samples) in enumerate(batches):
            image_count += len(samples)
            for given in (OWN, OTHERS, NONE):
                watch = _Watch(model, given, number)
                with watch:
                    found = model.loss(images, samples)
                for name, loss in found.items():
                    if isinstance(loss, Tensor) and "loss" in name:
                        losses[name][given].append(loss.item())
                if given == OWN and watch.matched is not None:
                    lengths.append(watch.length)
                    for stage, assignment in enumerate(watch.assignments):
                        index = watch.matched.index[assignment.image, assignment.kernel]
                        hits[stage] += (index == assignment.instance).tolist()
                        chances += (1 / watch.matched.prompts.counts[assignment.image]).tolist()
    finally:
        model.settings = settings
        model.train(training)
    if not lengths:
        raise UserError("none of these images has a proposal; take more --batches")
    return PromptUse(
        image_count,
        {name: {given: _mean(values) for given, values in row.items()} for name, row in losses.items()},
        _mean(lengths),
        [_mean(stage) for stage in hits.values()],
        _mean(chances),
    )


class _Watch:
    """While it is entered, a model's queries get the prompts that it says, and what they got is kept."""

    def __init__(self, model: Any, given: str, seed: int) -> None:
        self.model, self.given, self.seed = model, given, seed
        self.matched: PromptMatch | None = None
        self.length = 0.0
        self.assignments: Sequence[Assignment] = ()

    def __enter__(self) -> None:
        self.model.matched, self.model.prompted, self.model.kernel_losses = self._match, self._prompt, self._supervise

    def __exit__(self, *exception: object) -> None:
        del self.model.matched, self.model.prompted, self.model.kernel_losses

    def _match(self, *arguments: Any) -> PromptMatch | None:
        self.matched = None if self.given == NONE else SaliencyPromptMixin.matched(self.model, *arguments)
        return _exchanged(self.matched) if self.matched is not None and self.given == OTHERS else self.matched

    def _prompt(self, queries: Tensor, *arguments: Any) -> Tensor:
        decorated = SaliencyPromptMixin.prompted(self.model, queries, *arguments)
        if self.matched is not None:
            lengths = queries.norm(dim=-1)
            given = (self.matched.prompts.counts[:, None] > 0) & (lengths > 0)
            if given.any():
                self.length = ((decorated - queries).norm(dim=-1) / lengths)[given].median().item()
        torch.manual_seed(self.seed)  # what is drawn from here on, as points of masks, is the same whatever was given
        return decorated

    def _supervise(self, queries: Any, assignments: Sequence[Assignment], samples: Any) -> dict[str, Tensor]:
        self.assignments = assignments
        return SaliencyPromptMixin.kernel_losses(self.model, queries, assignments, samples)


def _exchanged(matched: PromptMatch) -> PromptMatch:
    """Each image with prompts gets those of the next one that has any.

    Of the same image they would tell nothing: kernels that have exchanged their prompts exchange their instances, too.
    """
    features, counts = matched.prompts
    shown = counts.nonzero().flatten()
    donors = torch.arange(len(counts), device=counts.device)
    donors[shown] = shown.roll(-1)
    return PromptMatch(Prompts(features[donors], counts[donors]), matched.index % counts[donors].clamp(min=1)[:, None])


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
