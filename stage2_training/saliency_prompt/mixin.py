"""What every detector with Saliency Prompt has: its settings, prompts for its queries, a loss on them."""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mmdet.models.detectors import BaseDetector
from mmdet.structures import DetDataSample
from mmdet.utils import ConfigType
from torch import Tensor

from stage1_proposals.common.errors import UserError
from stage2_training.knet.assignment import Assignment
from stage2_training.saliency_prompt.kernel_supervision import KernelSupervision
from stage2_training.saliency_prompt.matching import add_prompts, match_prompts
from stage2_training.saliency_prompt.prompts import Prompts, box_prompts
from stage2_training.saliency_prompt.query_hooks import QueryDecoder, recording
from stage2_training.saliency_prompt.settings import SaliencyPromptSettings


@dataclass(frozen=True)
class PromptMatch:
    """The prompts of a batch, and which of them each query gets.

    Attributes:
        prompts: L >= 1 rows.
        index: int64 (B, N), without meaning for images that have no prompt.
    """

    prompts: Prompts
    index: Tensor


class SaliencyPromptMixin:
    """Comes before a detector in the bases of its Saliency Prompt variant.

    `gt_instances` hold `bboxes` and `seed_features` float32 (L, D) besides masks and labels. All that is added to
    the state dict is `kernel_supervision.*`.
    """

    training: bool  # as of any torch module
    settings: SaliencyPromptSettings
    kernel_supervision: KernelSupervision

    def init_saliency_prompt(self, saliency_prompt: ConfigType, channels: int) -> None:
        """Call it at the end of `__init__`, with the fields of `SaliencyPromptSettings` and C, a query's length.

        Raises:
            UserError: a setting that makes no sense.
        """
        self.settings = SaliencyPromptSettings(**saliency_prompt)
        self.kernel_supervision = KernelSupervision(
            self.settings.feature_dim, channels, self.settings.kernel_loss_weight
        )

    def prompted(
        self,
        queries: Tensor,
        reference: Tensor,
        levels: Sequence[Tensor],
        batch_data_samples: Sequence[DetDataSample],
    ) -> Tensor:
        """Queries (B, N, C), each with its best-matched prompt added (Eq. 5-8).

        Args:
            queries: that prompts are added to.
            reference: what prompts are compared with, (N, C) or (B, N, C).
            levels: of the feature pyramid, (B, C, h, w), finest first.
            batch_data_samples: with `gt_instances`, in pixels of the padded input.
        """
        matched = self.matched(reference, levels, batch_data_samples)
        if matched is None:
            return queries
        drop_prob = self.settings.drop_prob if self.training else 0.0
        length = reference.detach().norm(dim=-1, keepdim=True) if self.settings.rescale else None
        return add_prompts(queries, matched.prompts, matched.index, drop_prob, length)

    def matched(
        self, reference: Tensor, levels: Sequence[Tensor], batch_data_samples: Sequence[DetDataSample]
    ) -> PromptMatch | None:
        """The prompts of a batch and which each query gets (Eq. 5-7), as for `prompted`; None: no query gets one."""
        settings = self.settings
        boxes = [sample.gt_instances.bboxes for sample in batch_data_samples]
        if settings.matching == "none" or not any(len(each) for each in boxes):
            return None
        feature = levels[settings.level]
        if settings.detach:
            feature = feature.detach()
        prompts = box_prompts(feature, boxes, batch_data_samples[0].batch_input_shape[1])
        return PromptMatch(prompts, match_prompts(reference, prompts, settings.matching))

    def kernel_losses(
        self,
        queries: Sequence[Tensor],
        assignments: Sequence[Assignment],
        batch_data_samples: Sequence[DetDataSample],
    ) -> dict[str, Tensor]:
        """Losses `s0.loss_kernel`, `s1.loss_kernel`, ... (Eq. 9), one for each stage or layer.

        Args:
            queries: that each stage puts out, (B, N, C).
            assignments: of each stage.
            batch_data_samples: with `gt_instances`.
        """
        seed_features = [sample.gt_instances.seed_features for sample in batch_data_samples]
        return self.kernel_supervision(seed_features, queries, assignments)


class SaliencyPromptAdapter(SaliencyPromptMixin, BaseDetector):
    """Comes before a detector in the bases of its Saliency Prompt variant, which says where its `query_decoder` is.

    In training only, the queries that enter the first decoder layer get prompts, and the queries that each layer puts
    out a loss. A prediction made before the first layer keeps the plain queries. Prompts are compared with the learned
    queries, which are the same for every image: `match_on` and `add_to` make no difference.

    Args:
        saliency_prompt: fields of `SaliencyPromptSettings`.
        kwargs: those of the detector.
    """

    def __init__(self, saliency_prompt: ConfigType, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.init_saliency_prompt(saliency_prompt, self.query_decoder().learned.shape[1])

    @abstractmethod
    def query_decoder(self) -> QueryDecoder:
        """Where this detector keeps what Saliency Prompt needs."""

    def loss(self, batch_inputs: Tensor, batch_data_samples: Sequence[DetDataSample]) -> dict[str, Tensor]:
        """The detector's losses and `s0.loss_kernel`, `s1.loss_kernel`, ... (Eq. 9), one for each layer.

        Raises:
            UserError: the settings' level of the pyramid does not exist, or has not the queries' number of channels.
        """
        decoder = self.query_decoder()

        def prompted(queries: Tensor, levels: Sequence[Tensor]) -> Tensor:
            self._check_level(levels, queries.shape[2])
            return self.prompted(queries, decoder.learned, levels, batch_data_samples)

        with recording(decoder, prompted) as record:
            losses: dict[str, Tensor] = super().loss(batch_inputs, batch_data_samples)
        assignments = record.assignments(len(batch_data_samples))
        return losses | self.kernel_losses(record.queries, assignments, batch_data_samples)

    def _check_level(self, levels: Sequence[Tensor], channels: int) -> None:
        self.settings.check_level(len(levels))
        found = levels[self.settings.level].shape[1]
        if found != channels:
            raise UserError(
                f"saliency_prompt.level {self.settings.level}: has {found} channels, but the queries have {channels}; "
                "use a level, or a pixel decoder, with as many"
            )
