"""Saliency Prompt pre-training of K-Net."""

from collections.abc import Sequence
from typing import Any

from mmdet.models.detectors import Mask2Former, MaskFormer, QueryInst
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmdet.utils import ConfigType
from torch import Tensor

from stage1_proposals.common.errors import UserError
from stage2_training.knet.detector import KNet
from stage2_training.knet.heads import KernelHeadOutput
from stage2_training.saliency_prompt.mixin import SaliencyPromptAdapter, SaliencyPromptMixin
from stage2_training.saliency_prompt.query_hooks import QueryDecoder


@MODELS.register_module()
class SaliencyPromptKNet(SaliencyPromptMixin, KNet):
    """K-Net whose kernels, in training only, get prompts and, after each update stage, a loss.

    Args:
        saliency_prompt: fields of `SaliencyPromptSettings`.
        kwargs: those of `KNet`.

    Raises:
        UserError: settings that make no sense.
    """

    def __init__(self, saliency_prompt: ConfigType, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.init_saliency_prompt(saliency_prompt, self.rpn_head.initial_kernels.shape[1])
        self.settings.check_level(len(self.rpn_head.localization_fpn.convs_all_levels))
        if (self.settings.match_on, self.settings.add_to) == ("object", "initial"):
            raise UserError(
                "saliency_prompt.match_on 'object': the image's own kernels are there after the first masks; "
                "use it with add_to=object"
            )

    def loss(self, batch_inputs: Tensor, batch_data_samples: Sequence[DetDataSample]) -> dict[str, Tensor]:
        """K-Net's losses and `s0.loss_kernel`, `s1.loss_kernel`, ... (Eq. 9)."""
        losses, stages, assignments = self.training_pass(batch_inputs, batch_data_samples)
        kernels = [stage.kernels for stage in stages]
        return losses | self.kernel_losses(kernels, assignments, batch_data_samples)

    def kernel_head_output(
        self, feats: Sequence[Tensor], batch_data_samples: Sequence[DetDataSample]
    ) -> KernelHeadOutput:
        """Add to each kernel its best-matched prompt (Eq. 5-8), before or after it makes its first mask."""
        learned = self.rpn_head.initial_kernels
        if self.settings.add_to == "initial":
            kernels = learned.expand(len(batch_data_samples), -1, -1)
            output: KernelHeadOutput = self.rpn_head(feats, self.prompted(kernels, learned, feats, batch_data_samples))
            return output
        plain: KernelHeadOutput = self.rpn_head(feats)
        reference = learned if self.settings.match_on == "initial" else plain.kernels
        return plain._replace(kernels=self.prompted(plain.kernels, reference, feats, batch_data_samples))


@MODELS.register_module()
class SaliencyPromptMask2Former(SaliencyPromptAdapter, Mask2Former):
    """Mask2Former whose query content embeddings get prompts; the masks predicted from them keep the plain ones."""

    def query_decoder(self) -> QueryDecoder:
        head = self.panoptic_head
        return QueryDecoder(
            learned=head.query_feat.weight,
            layers=head.transformer_decoder.layers,
            argument="query",
            output=lambda queries: queries,
            pyramid=head.pixel_decoder,
            levels=lambda returned: returned[1][::-1],  # coarsest first, after the features that masks are made of
            assigners=[head.assigner],
        )


@MODELS.register_module()
class SaliencyPromptMaskFormer(SaliencyPromptAdapter, MaskFormer):
    """MaskFormer whose decoder starts from prompts instead of zeros.

    All it learns of a query is its positional embedding, so prompts are compared with that.
    """

    def query_decoder(self) -> QueryDecoder:
        head = self.panoptic_head
        return QueryDecoder(
            learned=head.query_embed.weight,
            layers=head.transformer_decoder.layers,
            argument="query",
            output=lambda queries: queries,
            pyramid=head.pixel_decoder,
            levels=list,  # what masks are made of, at stride 4, and what the decoder looks at, at stride 32
            assigners=[head.assigner],
        )


@MODELS.register_module()
class SaliencyPromptQueryInst(SaliencyPromptAdapter, QueryInst):
    """QueryInst whose initial proposal features get prompts; its stages put out object features."""

    def query_decoder(self) -> QueryDecoder:
        return QueryDecoder(
            learned=self.rpn_head.init_proposal_features.weight,
            layers=self.roi_head.bbox_head,
            argument="proposal_feat",
            output=lambda returned: returned[2],  # after class scores and box deltas
            pyramid=self.neck,
            levels=list,
            assigners=self.roi_head.bbox_assigner,
        )
