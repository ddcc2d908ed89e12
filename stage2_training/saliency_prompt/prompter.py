"""From the proposals of a batch to queries with prompts (Section 3.3, Eq. 5-8)."""

from collections.abc import Sequence
from dataclasses import dataclass

from mmdet.structures import DetDataSample
from torch import Tensor

from stage1_proposals.common.errors import UserError
from stage2_training.saliency_prompt.matching import Prompts, add_prompts, box_prompts, match_prompts
from stage2_training.saliency_prompt.settings import SaliencyPromptSettings


@dataclass(frozen=True)
class PromptMatch:
    """The prompts of a batch, and which of them each query gets.

    Attributes:
        prompts: of the B images, L >= 1 rows.
        index: int64 (B, N), each query's row of `prompts`; arbitrary for images that have no prompt.
        length: L2 norm that prompts are scaled to, (N, 1) or (B, N, 1); None: they keep their own.
    """

    prompts: Prompts
    index: Tensor
    length: Tensor | None = None


class Prompter:
    """Makes the prompts of a batch, matches them with queries and adds them. Detectors delegate to one.

    Args:
        settings: how.
    """

    def __init__(self, settings: SaliencyPromptSettings) -> None:
        self.settings = settings

    def match(
        self, reference: Tensor, levels: Sequence[Tensor], batch_data_samples: Sequence[DetDataSample]
    ) -> PromptMatch | None:
        """The prompts of a batch and which one each query gets (Eq. 5-7); None where no query gets any.

        Args:
            reference: queries that prompts are compared with, (N, C) or (B, N, C).
            levels: of the feature pyramid, (B, C, h, w), finest first.
            batch_data_samples: with `gt_instances.bboxes`, in pixels of the padded input.

        Raises:
            UserError: the pyramid lacks the settings' level, or its number of channels is not that of the queries.
        """
        settings = self.settings
        feature = self._level(levels, reference.shape[-1])
        boxes = [sample.gt_instances.bboxes for sample in batch_data_samples]
        if settings.matching == "none" or not any(map(len, boxes)):
            return None
        if settings.detach:
            feature = feature.detach()
        prompts = box_prompts(feature, boxes, batch_data_samples[0].batch_input_shape[1])  # Eq. 5
        index = match_prompts(reference, prompts, settings.matching)  # Eq. 6, 7
        length = reference.detach().norm(dim=-1, keepdim=True) if settings.rescale else None
        return PromptMatch(prompts, index, length)

    def add(self, queries: Tensor, match: PromptMatch | None, training: bool) -> Tensor:
        """Queries (B, N, C), each with its prompt added (Eq. 8).

        Args:
            queries: that prompts are added to.
            match: from `match`; None leaves the queries as they are.
            training: drop prompts with the settings' probability.
        """
        if match is None:
            return queries
        drop_prob = self.settings.drop_prob if training else 0.0
        return add_prompts(queries, match.prompts, match.index, drop_prob, match.length)

    def _level(self, levels: Sequence[Tensor], channels: int) -> Tensor:
        self.settings.check_level(len(levels))
        feature = levels[self.settings.level]
        if feature.shape[1] != channels:
            raise UserError(
                f"saliency_prompt.level {self.settings.level}: has {feature.shape[1]} channels, but the queries have "
                f"{channels}; use a level, or a pixel decoder, with as many"
            )
        return feature
