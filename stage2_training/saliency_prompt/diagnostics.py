"""Whether a model in pre-training reads its prompts: its losses with its own prompts and with others in their place."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from mmdet.structures import DetDataSample
from torch import Tensor

from stage1_proposals.common.errors import UserError
from stage2_training.saliency_prompt.matching import Prompts
from stage2_training.saliency_prompt.prompter import Prompter, PromptMatch, image_means

OWN, SWAPPED, MEAN, NONE = VARIANTS = ("own", "swapped", "image mean", "none")


@dataclass(frozen=True)
class PromptDiagnosis:
    """How a model uses its prompts; means over batches.

    Attributes:
        images: number of images.
        losses: by the loss's name, then by which prompt each query got: `own`, the one it matches; `swapped`, one of
            another image of the batch; `image mean`, the mean feature of its image, the same for all of its queries, a
            control that says nothing of an object; `none`. Only where `own` is below the other three are prompts read.
        length: L2 norm of what was added to a query, divided by that of the query; the median over queries that are
            not zero, 0 where all are.
        hits: for each stage or layer, the share of instances whose matched query had that very instance's prompt.
        chance: what `hits` would be if every query had a random prompt of its image.
        used: share of the prompts that a query got.
        likeness: mean cosine of two prompts of one image, and of two images; NaN where there are no two.
    """

    images: int
    losses: dict[str, dict[str, float]]
    length: float
    hits: list[float]
    chance: float
    used: float
    likeness: tuple[float, float]


@torch.no_grad()
def diagnose_prompts(model: Any, batches: Iterable[tuple[Tensor, Sequence[DetDataSample]]]) -> PromptDiagnosis:
    """Run a model on each batch with its own prompts and with each of the others, without dropping any.

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
    used: list[float] = []
    likeness = _Likeness()
    image_count = 0
    training = model.training
    model.train()
    try:
        for number, (images, samples) in enumerate(batches):
            image_count += len(samples)
            for variant in VARIANTS:
                prompter = _DiagnosticPrompter(model.prompter, variant, seed=number)
                prompted = model.prompted_pass(images, samples, prompter)
                for name, loss in prompted.losses.items():
                    if isinstance(loss, Tensor) and "loss" in name:
                        losses[name][variant].append(loss.item())
                if variant == OWN and prompted.match is not None and prompter.length is not None:
                    lengths.append(prompter.length)
                    used += _used(prompted.match)
                    likeness.add(prompted.match.prompts)
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
        _mean(used),
        likeness.means(),
    )


class _DiagnosticPrompter(Prompter):
    """A prompter without dropping that can replace prompts or leave them out, and measures what it adds.

    Args:
        own: the model's.
        variant: one of `VARIANTS`.
        seed: for what is drawn at random after the prompts, such as points of masks: the same for every variant.

    Attributes:
        length: see `PromptDiagnosis`, for this batch.
    """

    def __init__(self, own: Prompter, variant: str, seed: int) -> None:
        super().__init__(replace(own.settings, drop_prob=0.0), own.projection)
        self.variant, self.seed = variant, seed
        self.length: float | None = None

    def match(self, *args: Any) -> PromptMatch | None:
        match = super().match(*args)
        if match is not None and self.variant == SWAPPED:
            return swap_prompts(match)
        if match is not None and self.variant == NONE:
            return replace(match, kept=torch.zeros_like(match.kept))
        return match

    def prompts_of_queries(self, match: PromptMatch) -> Tensor:
        if self.variant == MEAN:
            return image_means(match)
        return super().prompts_of_queries(match)

    def add(self, queries: Tensor, match: PromptMatch | None, reference: Tensor) -> Tensor:
        prompted = super().add(queries, match, reference)
        if match is not None and self.length is None:  # not what a mask embedding gets
            lengths = queries.norm(dim=-1)
            measurable = match.kept & (lengths > 0)
            ratios = ((prompted - queries).norm(dim=-1) / lengths)[measurable]
            self.length = ratios.median().item() if measurable.any() else 0.0
        torch.manual_seed(self.seed)
        return prompted


class _Likeness:
    """Mean cosine of pairs of prompts, of one image and of two images of a batch."""

    def __init__(self) -> None:
        self.sums = torch.zeros(2, dtype=torch.float64)
        self.pairs = torch.zeros(2, dtype=torch.float64)

    def add(self, prompts: Prompts) -> None:
        present = torch.arange(prompts.features.shape[1], device=prompts.counts.device) < prompts.counts[:, None]
        image = present.nonzero()[:, 0]
        directions = F.normalize(prompts.features[present], dim=-1)
        cosines, same_image = directions @ directions.T, image[:, None] == image
        other_row = ~torch.eye(len(image), dtype=torch.bool, device=image.device)
        for kind, pairs in enumerate((same_image & other_row, ~same_image)):
            self.sums[kind] += cosines[pairs].sum().cpu()
            self.pairs[kind] += pairs.sum().cpu()

    def means(self) -> tuple[float, float]:
        within, across = (self.sums / self.pairs).tolist()
        return within, across


def _used(match: PromptMatch) -> list[float]:
    """For every prompt of a batch, 1 if a query got it, else 0."""
    return [
        float(row in index)
        for index, count in zip(match.index.tolist(), match.prompts.counts.tolist(), strict=True)
        for row in range(count)
    ]


def swap_prompts(match: PromptMatch) -> PromptMatch:
    """Give each image that has prompts those of the next one that has any.

    Swapping within an image would show nothing: kernels that swap their prompts swap their instances, too.
    """
    prompts = match.prompts
    with_prompts = prompts.counts.nonzero().flatten()
    donors = torch.arange(len(prompts.counts), device=prompts.counts.device)
    donors[with_prompts] = with_prompts.roll(-1)
    swapped = Prompts(prompts.features[donors], prompts.counts[donors], prompts.image_means[donors])
    return replace(match, prompts=swapped, index=match.index % swapped.counts.clamp(min=1)[:, None])


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
