"""Whether a model in pre-training reads its prompts: its losses with its own prompts, swapped ones, and none."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from mmdet.structures import DetDataSample
from torch import Tensor

from stage1_proposals.common.errors import UserError
from stage2_training.saliency_prompt.matching import Prompts
from stage2_training.saliency_prompt.prompter import Prompter, PromptMatch
from stage2_training.saliency_prompt.settings import SaliencyPromptSettings

OWN, SWAPPED, NONE = "own", "swapped", "none"


@dataclass(frozen=True)
class PromptDiagnosis:
    """How a model uses its prompts; means over batches.

    Attributes:
        images: number of images.
        losses: by the loss's name, then by which prompt each query got: `own`, the one it matches; `swapped`, one of
            another image of the batch; `none`. Where the three losses are alike, prompts are not read.
        length: L2 norm of what was added to a query, divided by that of the query; the median over queries that are
            not zero, 0 where all are.
        hits: for each stage or layer, the share of instances whose matched query had that very instance's prompt.
        chance: what `hits` would be if every query had a random prompt of its image.
    """

    images: int
    losses: dict[str, dict[str, float]]
    length: float
    hits: list[float]
    chance: float


@torch.no_grad()
def diagnose_prompts(model: Any, batches: Iterable[tuple[Tensor, Sequence[DetDataSample]]]) -> PromptDiagnosis:
    """Run a model on each batch with its own prompts, with swapped ones and with none, without dropping any.

    In a batch with prompts in one image only, swapped prompts are the image's own.

    Args:
        model: a Saliency Prompt detector whose prompts are not switched off. It is left unchanged.
        batches: images (B, 3, H, W) and samples with `gt_instances`; at least one instance in all.

    Raises:
        UserError: there is no instance.
    """
    losses: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    hits: dict[int, list[bool]] = defaultdict(list)
    lengths: list[float] = []
    chances: list[float] = []
    image_count = 0
    training = model.training
    model.train()
    try:
        for number, (images, samples) in enumerate(batches):
            image_count += len(samples)
            for variant in (OWN, SWAPPED, NONE):
                prompter = _DiagnosticPrompter(model.prompter.settings, variant, seed=number)
                prompted = model.prompted_pass(images, samples, prompter)
                for name, loss in prompted.losses.items():
                    if isinstance(loss, Tensor) and "loss" in name:
                        losses[name][variant].append(loss.item())
                if variant == OWN and prompted.match is not None:
                    lengths.append(prompter.length)
                    for stage, assignment in enumerate(prompted.assignments):
                        index = prompted.match.index[assignment.image, assignment.kernel]
                        hits[stage] += (index == assignment.instance).tolist()
                        chances += (1 / prompted.match.prompts.counts[assignment.image]).tolist()
    finally:
        model.train(training)
    if not lengths:
        raise UserError("none of these images has a proposal; take more --batches")
    return PromptDiagnosis(
        image_count,
        {name: {variant: _mean(values) for variant, values in row.items()} for name, row in losses.items()},
        _mean(lengths),
        [_mean(stage) for stage in hits.values()],
        _mean(chances),
    )


class _DiagnosticPrompter(Prompter):
    """A prompter without dropping that can swap prompts or leave them out, and measures what it adds.

    Args:
        settings: the model's.
        variant: `own`, `swapped` or `none`.
        seed: for what is drawn at random after the prompts, such as points of masks: the same for every variant.

    Attributes:
        length: see `PromptDiagnosis`, for this batch.
    """

    def __init__(self, settings: SaliencyPromptSettings, variant: str, seed: int) -> None:
        super().__init__(replace(settings, drop_prob=0.0))
        self.variant, self.seed = variant, seed
        self.length = 0.0

    def match(self, *args: Any) -> PromptMatch | None:
        if self.variant == NONE:
            return None
        match = super().match(*args)
        return swap_prompts(match) if match is not None and self.variant == SWAPPED else match

    def add(self, queries: Tensor, match: PromptMatch | None, training: bool) -> Tensor:
        prompted = super().add(queries, match, training)
        if match is not None:
            lengths = queries.norm(dim=-1)
            measurable = (match.prompts.counts[:, None] > 0) & (lengths > 0)
            if measurable.any():
                self.length = ((prompted - queries).norm(dim=-1) / lengths)[measurable].median().item()
        torch.manual_seed(self.seed)
        return prompted


def swap_prompts(match: PromptMatch) -> PromptMatch:
    """Give each image that has prompts those of the next one that has any.

    Swapping within an image would show nothing: kernels that swap their prompts swap their instances, too.
    """
    features, counts = match.prompts
    with_prompts = counts.nonzero().flatten()
    donors = torch.arange(len(counts), device=counts.device)
    donors[with_prompts] = with_prompts.roll(-1)
    prompts = Prompts(features[donors], counts[donors])
    return replace(match, prompts=prompts, index=match.index % prompts.counts.clamp(min=1)[:, None])


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
