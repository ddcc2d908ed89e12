"""From the proposals of a batch to queries with prompts (Section 3.3, Eq. 5-8)."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from mmdet.structures import DetDataSample
from torch import Tensor, nn

from stage1_proposals.common.errors import UserError
from stage2_training.saliency_prompt.matching import Prompts, box_prompts, gather_prompts, match_prompts
from stage2_training.saliency_prompt.settings import SaliencyPromptSettings


@dataclass(frozen=True)
class PromptMap:
    """Where prompts can be pooled from.

    Attributes:
        levels: of the feature pyramid, (B, C, h, w), finest first.
        query_map: makes the map that queries are multiplied with, (B, C, h, w). Its cells look where its masks are.
        level_offset: from pixels per cell of a level to how far from their centres its cells look, in pixels.
    """

    levels: Sequence[Tensor]
    query_map: Callable[[], Tensor]
    level_offset: Callable[[int], int] = lambda stride: 0


@dataclass(frozen=True)
class PromptMatch:
    """The prompts of a batch, and which of them each query gets.

    Attributes:
        prompts: of the B images, L >= 1 rows.
        index: int64 (B, N), each query's row of `prompts`; arbitrary for images that have no prompt.
        kept: bool (B, N), whether a query gets its prompt: it was not dropped, and its image has prompts.
        pooled: (B, L, D), what prompts are made of: themselves, if no linear layer makes them.
    """

    prompts: Prompts
    index: Tensor
    kept: Tensor
    pooled: Tensor


def image_means(match: PromptMatch) -> Tensor:
    """The mean feature of its image for each query, (B, N, C): a prompt that says nothing of an object."""
    return match.prompts.image_means[:, None].expand(*match.index.shape, -1)


class Prompter:
    """Makes the prompts of a batch, matches them with queries and adds them. Detectors delegate to one.

    Args:
        settings: how.
        projection: from what is pooled, of length D, to prompts as long as queries; None: the map has that length.
    """

    def __init__(self, settings: SaliencyPromptSettings, projection: nn.Linear | None = None) -> None:
        self.settings = settings
        self.projection = projection

    def match(
        self, reference: Tensor, maps: PromptMap, batch_data_samples: Sequence[DetDataSample], training: bool
    ) -> PromptMatch | None:
        """The prompts of a batch and which one each query gets (Eq. 5-7); None where no query gets any.

        Args:
            reference: queries that prompts are compared with, (N, C) or (B, N, C).
            maps: what prompts are pooled from.
            batch_data_samples: with `gt_instances.bboxes`, in pixels of the padded input.
            training: drop prompts with the settings' probability.

        Raises:
            UserError: the pyramid lacks the settings' level, or its number of channels is not that of the queries.
        """
        settings = self.settings
        boxes = [sample.gt_instances.bboxes for sample in batch_data_samples]
        feature = self._feature(maps, reference.shape[-1])
        if settings.matching == "none" or not any(map(len, boxes)):
            return None
        if settings.detach:
            feature = feature.detach()
        sizes = [sample.img_shape[:2] for sample in batch_data_samples]
        width = batch_data_samples[0].batch_input_shape[1]
        offset = maps.level_offset(width // feature.shape[-1]) if settings.pool_from == "pyramid" else 0
        prompts = box_prompts(feature, boxes, sizes, width, settings.center, offset)  # Eq. 5
        pooled = prompts.features
        if self.projection is not None:
            features, means = (self.projection(values).float() for values in (pooled, prompts.image_means))
            prompts = prompts._replace(features=features, image_means=means)
        if settings.matching == "mean":
            index = torch.zeros(len(boxes), reference.shape[-2], dtype=torch.int64, device=feature.device)
        else:
            index = match_prompts(reference, prompts, settings.matching)  # Eq. 6, 7
        drop_prob = settings.drop_prob if training else 0.0
        kept = torch.rand(index.shape, device=feature.device) >= drop_prob
        return PromptMatch(prompts, index, kept & (prompts.counts[:, None] > 0), pooled)

    def add(self, queries: Tensor, match: PromptMatch | None, reference: Tensor) -> Tensor:
        """Queries (B, N, C), each with its prompt added (Eq. 8).

        Args:
            queries: that prompts are added to.
            match: from `match`; None leaves the queries as they are.
            reference: (N, C) or (B, N, C); `rescale` gives prompts the length of these.
        """
        if match is None:
            parameters = [] if self.projection is None else self.projection.parameters()
            return queries + sum(0 * each.sum() for each in parameters)  # processes wait for each other's gradients
        added = self.prompts_of_queries(match)
        if self.settings.rescale:
            added = F.normalize(added, dim=-1) * reference.detach().norm(dim=-1, keepdim=True)
        return queries + added * match.kept[:, :, None]

    def prompts_of_queries(self, match: PromptMatch) -> Tensor:
        """The prompt of each query at the prompt's own length, (B, N, C)."""
        if self.settings.matching == "mean":
            return image_means(match)
        return gather_prompts(match.prompts, match.index)

    def _feature(self, maps: PromptMap, channels: int) -> Tensor:
        """The map that prompts are pooled from."""
        if self.settings.pool_from == "pyramid":
            self.settings.check_level(len(maps.levels))
            name, feature = f"level {self.settings.level}", maps.levels[self.settings.level]
        else:
            name, feature = "pool_from 'query_map'", maps.query_map()
        if self.projection is None and feature.shape[1] != channels:
            raise UserError(
                f"saliency_prompt.{name}: has {feature.shape[1]} channels, but the queries have {channels}; use a "
                f"level, or a pixel decoder, with as many"
            )
        return feature
