"""Saliency Prompt pre-training of QueryInst."""

from mmdet.models.detectors import QueryInst
from mmdet.registry import MODELS

from stage2_training.saliency_prompt.adapter import SaliencyPromptAdapter
from stage2_training.saliency_prompt.recording import QueryDecoder


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
