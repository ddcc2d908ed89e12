"""What every detector with Saliency Prompt has: its settings, prompts for its queries, a loss on them."""

from collections.abc import Sequence
from dataclasses import dataclass

from mmdet.structures import DetDataSample
from mmdet.utils import ConfigType
from torch import Tensor

from stage2_training.assignments import Assignment
from stage2_training.prompt_settings import SaliencyPromptSettings
from stage2_training.saliency_prompt.kernel_supervision import KernelSupervision
from stage2_training.saliency_prompt.matching import add_prompts, match_prompts
from stage2_training.saliency_prompt.prompts import Prompts, box_prompts


@dataclass(frozen=True)
class Matched:
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
    ) -> Matched | None:
        """The prompts of a batch and which each query gets (Eq. 5-7), as for `prompted`; None: no query gets one."""
        settings = self.settings
        boxes = [sample.gt_instances.bboxes for sample in batch_data_samples]
        if settings.matching == "none" or not any(len(each) for each in boxes):
            return None
        feature = levels[settings.level]
        if settings.detach:
            feature = feature.detach()
        prompts = box_prompts(feature, boxes, batch_data_samples[0].batch_input_shape[1])
        return Matched(prompts, match_prompts(reference, prompts, settings.matching))

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
