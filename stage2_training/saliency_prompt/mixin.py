"""What every Saliency Prompt detector has: a prompter for its queries, and a loss on them."""

from abc import abstractmethod
from collections.abc import Sequence
from copy import deepcopy
from typing import Any, NamedTuple

from mmdet.models.detectors import BaseDetector
from mmdet.structures import DetDataSample
from mmdet.utils import ConfigType
from torch import Tensor, nn

from stage1_proposals.backbones.cell_offset import cell_offset
from stage1_proposals.common.errors import UserError
from stage2_training.knet.assignment import Assignment
from stage2_training.saliency_prompt.embedding_head import EmbeddingHead
from stage2_training.saliency_prompt.kernel_supervision import KernelSupervision
from stage2_training.saliency_prompt.prompter import Prompter, PromptMap, PromptMatch
from stage2_training.saliency_prompt.query_groups import group_mask, masked_attention
from stage2_training.saliency_prompt.query_hooks import QueryDecoder, recording
from stage2_training.saliency_prompt.settings import SaliencyPromptSettings


class PromptedPass(NamedTuple):
    """A training pass with prompts.

    Attributes:
        losses: the detector's, and `s0.loss_kernel`, `s1.loss_kernel`, ... (Eq. 9), one for each stage or layer.
        match: which query got which prompt; None where no query got any.
        queries: that each stage or layer puts out, (B, N, C).
        assignments: of each stage or layer.
    """

    losses: dict[str, Tensor]
    match: PromptMatch | None
    queries: list[Tensor]
    assignments: list[Assignment]


class BackboneMap(nn.Module):
    """A copy of a detector's backbone that gives the map of one stride alone, on the CPU and in evaluation mode."""

    def __init__(self, backbone: nn.Module, stride: int) -> None:
        super().__init__()
        self.backbone = deepcopy(backbone).cpu().float()
        self.backbone.eval()  # returns nothing in some of MMDetection's
        self.stride = stride

    def forward(self, images: Tensor) -> Tensor:
        """Images (B, 3, H, W) to (B, D, H / stride, W / stride)."""
        maps: Sequence[Tensor] = self.backbone(images)
        return min(maps, key=lambda one: abs(one.shape[-1] * self.stride - images.shape[-1]))


class SaliencyPromptMixin:
    """The parts of a Saliency Prompt detector; comes before the vanilla detector in the bases.

    `gt_instances` hold `bboxes` and `seed_features` float32 (L, D) besides masks and labels. The state dict gains
    `kernel_supervision.*` and, with `prompt_channels`, `prompt_projection.*`.
    """

    training: bool  # as in any torch module
    backbone: nn.Module
    prompter: Prompter
    target_dim: int  # length of what queries are supervised with
    kernel_supervision: KernelSupervision | EmbeddingHead

    def init_saliency_prompt(
        self, saliency_prompt: ConfigType, channels: int, prompt_channels: int | None = None
    ) -> None:
        """Set up both parts; to be called at the end of `__init__`.

        Args:
            saliency_prompt: fields of `SaliencyPromptSettings`.
            channels: C, length of a query.
            prompt_channels: length of what prompts are made of, if a linear layer makes them; None: that of a query.

        Raises:
            UserError: an unknown setting, a bad value, or settings that contradict each other.
        """
        settings = SaliencyPromptSettings(**saliency_prompt)
        from_prompts = settings.kernel_target == "prompt"
        if from_prompts and settings.matching == "none":
            raise UserError(
                "saliency_prompt.kernel_target 'prompt': there are none with matching=none; use kernel_target=seed"
            )
        if settings.groups and settings.matching in ("none", "mean"):
            raise UserError(
                f"saliency_prompt.groups: with matching={settings.matching} there are no prompts to tell groups apart "
                f"by; use another matching, or groups=False"
            )
        self.prompt_projection = nn.Linear(prompt_channels, channels) if prompt_channels else None
        self.prompter = Prompter(settings, self.prompt_projection)
        self._level_offsets: dict[int, int] = {}
        supervision = EmbeddingHead if settings.kernel_loss in ("reconstruct", "regress") else KernelSupervision
        self.target_dim = (prompt_channels or channels) if from_prompts else settings.feature_dim
        self.kernel_supervision = supervision(
            self.target_dim, channels, settings.kernel_loss_weight, settings.kernel_loss
        )

    def level_offset(self, stride: int) -> int:
        """How far down and to the right of their centres the cells of a level look, in pixels.

        Levels have the offset of the backbone's map of the same stride. It is measured once for each stride.
        """
        if stride not in self._level_offsets:
            self._level_offsets[stride] = cell_offset(BackboneMap(self.backbone, stride), stride)
        return self._level_offsets[stride]

    def kernel_losses(
        self,
        queries: Sequence[Tensor],
        assignments: Sequence[Assignment],
        batch_data_samples: Sequence[DetDataSample],
        match: PromptMatch | None = None,
    ) -> dict[str, Tensor]:
        """Losses `s0.loss_kernel`, `s1.loss_kernel`, ... (Eq. 9), one for each stage or layer.

        Args:
            queries: that each stage puts out, (B, N, C).
            assignments: of each stage.
            batch_data_samples: with `gt_instances`.
            match: of the prompts, if these are the targets; None where no image has any.
        """
        instances = [sample.gt_instances for sample in batch_data_samples]
        targets = [image.seed_features for image in instances]
        if self.prompter.settings.kernel_target == "prompt":
            empty = queries[0].new_zeros(len(instances), 0, self.target_dim)
            pooled = empty if match is None else match.pooled
            targets = [rows[: len(image)] for rows, image in zip(pooled, instances, strict=True)]
        losses: dict[str, Tensor] = self.kernel_supervision(targets, queries, assignments)
        return losses


class SaliencyPromptAdapter(SaliencyPromptMixin, BaseDetector):
    """Saliency Prompt for MMDetection's own detectors; comes before one of them in the bases of its variant.

    The variant only says where its `query_decoder` is. In training, the queries get prompts before the first decoder
    layer, also for a prediction that is made before it, and the queries that each layer puts out a loss. Prompts are
    compared with the learned queries, which are the same for every image, so `match_on` and `add_to` make no
    difference.

    Args:
        saliency_prompt: fields of `SaliencyPromptSettings`.
        kwargs: those of the vanilla detector.
    """

    def __init__(self, saliency_prompt: ConfigType, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        decoder = self.query_decoder()
        self.init_saliency_prompt(saliency_prompt, decoder.learned.shape[1], decoder.prompt_channels)
        if self.prompter.settings.groups and not decoder.self_attention:
            raise UserError(f"saliency_prompt.groups: {type(self).__name__} cannot keep queries apart; leave it out")

    @abstractmethod
    def query_decoder(self) -> QueryDecoder:
        """Where this detector keeps what Saliency Prompt needs."""

    def loss(self, batch_inputs: Tensor, batch_data_samples: Sequence[DetDataSample]) -> dict[str, Tensor]:
        """The losses of a `prompted_pass`."""
        return self.prompted_pass(batch_inputs, batch_data_samples).losses

    def prompted_pass(
        self,
        batch_inputs: Tensor,
        batch_data_samples: Sequence[DetDataSample],
        prompter: Prompter | None = None,
    ) -> PromptedPass:
        """The detector's training pass, with prompts and kernel supervision.

        Args:
            batch_inputs: images (B, 3, H, W).
            batch_data_samples: with `gt_instances`.
            prompter: used instead of the detector's own.

        Raises:
            UserError: the settings' level of the pyramid does not exist, or its number of channels is not that of the
                queries; an assigner that does not report its matches.
        """
        prompter, decoder = prompter or self.prompter, self.query_decoder()
        match: PromptMatch | None = None

        def add_to_queries(queries: Tensor, pyramid: Any) -> Tensor:
            nonlocal match
            size = batch_inputs.shape[-2], batch_inputs.shape[-1]
            maps = PromptMap(decoder.levels(pyramid), lambda: decoder.query_map(pyramid, size), self.level_offset)
            match = prompter.match(decoder.learned, maps, batch_data_samples, self.training)
            return prompter.add(queries, match, reference=decoder.learned)

        def add_to_embedding(embedding: Tensor) -> Tensor:
            return prompter.add(embedding, match, reference=embedding)

        def different_groups() -> Tensor | None:
            return group_mask(match.index) if match is not None and prompter.settings.groups else None

        with (
            recording(decoder, add_to_queries, add_to_embedding) as record,
            masked_attention(decoder.self_attention, different_groups),
        ):
            losses: dict[str, Tensor] = super().loss(batch_inputs, batch_data_samples)
        assignments = record.assignments(len(batch_data_samples))
        losses |= self.kernel_losses(record.queries, assignments, batch_data_samples, match)
        return PromptedPass(losses, match, record.queries, assignments)
