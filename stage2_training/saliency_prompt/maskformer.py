"""Saliency Prompt pre-training of MaskFormer."""

from mmdet.models.detectors import MaskFormer
from mmdet.registry import MODELS

from stage2_training.saliency_prompt.adapter import SaliencyPromptAdapter
from stage2_training.saliency_prompt.recording import QueryDecoder


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
