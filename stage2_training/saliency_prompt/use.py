"""What a model in pre-training makes of its prompts: its losses with them, with others, and without."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from mmdet.structures import DetDataSample
from torch import Tensor

from stage2_training.assignments import Assignment
from stage2_training.saliency_prompt.detector import Matched, SaliencyPromptMixin

OWN, OTHERS, NONE = "its own", "another's", "none"


class PromptUse(NamedTuple):
    """Means over batches.

    Attributes:
        losses: by the loss's name, then by what each query got: the prompt that it matches, another one of the same
            photo in its place, or nothing. Where the three are alike, prompts are not read.
        length: L2 norm of what was added to a query in that of the query, the median over queries.
        hits: of each stage or layer: the share of instances whose matched query had that very instance's prompt.
        chance: what `hits` would be, had every query a prompt at random.
    """

    losses: dict[str, dict[str, float]]
    length: float
    hits: list[float]
    chance: float


@torch.no_grad()
def prompt_use(model: Any, batches: Iterable[tuple[Tensor, Sequence[DetDataSample]]]) -> PromptUse:
    """Measure it, in training mode but for the dropping of prompts.

    Args:
        model: with `SaliencyPromptMixin`, and prompts that are not switched off; left as it was.
        batches: images (B, 3, H, W) and samples with `gt_instances`; of all of them at least one instance.
    """
    losses: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    hits: dict[int, list[bool]] = defaultdict(list)
    lengths, chances = [], []
    training, settings = model.training, model.settings
    model.train()
    model.settings = replace(settings, drop_prob=0.0)
    try:
        for number, (images, samples) in enumerate(batches):
            for given in (OWN, OTHERS, NONE):
                watch = _Watch(model, given, number)
                with watch:
                    found = model.loss(images, samples)
                for name, loss in found.items():
                    if isinstance(loss, Tensor) and "loss" in name:
                        losses[name][given].append(loss.item())
                if given == OWN and watch.matched is not None:
                    lengths.append(watch.length)
                    counts = watch.matched.prompts.counts
                    chances += (1 / counts[counts > 0]).tolist()
                    for stage, assignment in enumerate(watch.assignments):
                        index = watch.matched.index[assignment.image, assignment.kernel]
                        hits[stage] += (index == assignment.instance).tolist()
    finally:
        model.settings = settings
        model.train(training)
    return PromptUse(
        {name: {given: _mean(values) for given, values in row.items()} for name, row in losses.items()},
        _mean(lengths),
        [_mean(stage) for stage in hits.values()],
        _mean(chances),
    )


class _Watch:
    """While it is entered, a model's queries get the prompts that it says, and what they got is kept."""

    def __init__(self, model: Any, given: str, seed: int) -> None:
        self.model, self.given, self.seed = model, given, seed
        self.matched: Matched | None = None
        self.length = 0.0
        self.assignments: Sequence[Assignment] = ()

    def __enter__(self) -> None:
        self.model.matched, self.model.prompted, self.model.kernel_losses = self._match, self._prompt, self._supervise

    def __exit__(self, *exception: object) -> None:
        del self.model.matched, self.model.prompted, self.model.kernel_losses

    def _match(self, *arguments: Any) -> Matched | None:
        self.matched = None if self.given == NONE else SaliencyPromptMixin.matched(self.model, *arguments)
        if self.matched is None or self.given == OWN:
            return self.matched
        features = self.matched.prompts.features.clone()
        for rows, count in zip(features, self.matched.prompts.counts.tolist(), strict=True):
            rows[:count] = rows[:count].roll((count + 1) // 2, dims=0)  # masks of like scores have often like places
        return replace(self.matched, prompts=self.matched.prompts._replace(features=features))

    def _prompt(self, queries: Tensor, *arguments: Any) -> Tensor:
        decorated = SaliencyPromptMixin.prompted(self.model, queries, *arguments)
        if self.matched is not None:
            shown = self.matched.prompts.counts > 0
            self.length = ((decorated - queries)[shown].norm(dim=-1) / queries[shown].norm(dim=-1)).median().item()
        torch.manual_seed(self.seed)  # what is drawn from here on, as points of masks, is the same whatever was given
        return decorated

    def _supervise(self, queries: Any, assignments: Sequence[Assignment], samples: Any) -> dict[str, Tensor]:
        self.assignments = assignments
        return SaliencyPromptMixin.kernel_losses(self.model, queries, assignments, samples)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0
