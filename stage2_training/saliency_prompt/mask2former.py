"""Saliency Prompt pre-training of Mask2Former."""

from mmdet.models.detectors import Mask2Former
from mmdet.registry import MODELS

from stage2_training.saliency_prompt.adapter import SaliencyPromptAdapter
from stage2_training.saliency_prompt.recording import QueryDecoder


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
