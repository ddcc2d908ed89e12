"""Saliency Prompt pre-training of K-Net."""

from collections.abc import Sequence
from typing import Any

from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmdet.utils import ConfigType
from torch import Tensor

from stage2_training.knet.detector import KNet
from stage2_training.knet.kernel_head import KernelHeadOutput
from stage2_training.saliency_prompt.kernel_supervision import KernelSupervision
from stage2_training.saliency_prompt.matching import add_prompts, match_prompts
from stage2_training.saliency_prompt.prompts import box_prompts
from stage2_training.saliency_prompt.settings import SaliencyPromptSettings


@MODELS.register_module()
class SaliencyPromptKNet(KNet):
    """K-Net whose kernels, in training only, get prompts before the first update stage and a loss after each.

    `gt_instances` hold `bboxes` and `seed_features` float32 (L, D) besides masks and labels. Without
    `kernel_supervision.*`, the state dict is K-Net's.

    Args:
        saliency_prompt: fields of `SaliencyPromptSettings`.
        kwargs: those of `KNet`.
    """

    def __init__(self, saliency_prompt: ConfigType, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.settings = SaliencyPromptSettings(**saliency_prompt)
        self.settings.check_level(len(self.rpn_head.localization_fpn.convs_all_levels))
        channels = self.rpn_head.initial_kernels.shape[1]
        self.kernel_supervision = KernelSupervision(
            self.settings.feature_dim, channels, self.settings.kernel_loss_weight
        )

    def loss(self, batch_inputs: Tensor, batch_data_samples: Sequence[DetDataSample]) -> dict[str, Tensor]:
        """K-Net's losses and `s0.loss_kernel`, `s1.loss_kernel`, ... (Eq. 9)."""
        losses, stages, assignments = self.training_pass(batch_inputs, batch_data_samples)
        seed_features = [sample.gt_instances.seed_features for sample in batch_data_samples]
        kernels = [stage.kernels for stage in stages]
        return losses | self.kernel_supervision(seed_features, kernels, assignments)

    def decorate_kernels(
        self, initial: KernelHeadOutput, feats: Sequence[Tensor], batch_data_samples: Sequence[DetDataSample]
    ) -> Tensor:
        """Add to each kernel its best-matched prompt (Eq. 5-8)."""
        settings = self.settings
        boxes = [sample.gt_instances.bboxes for sample in batch_data_samples]
        if settings.matching == "none" or not any(len(each) for each in boxes):
            return initial.kernels
        feature = feats[settings.level]
        if settings.detach:
            feature = feature.detach()
        prompts = box_prompts(feature, boxes, batch_data_samples[0].batch_input_shape[1])
        reference = self.rpn_head.initial_kernels if settings.match_on == "initial" else initial.kernels
        index = match_prompts(reference, prompts, settings.matching)
        return add_prompts(initial.kernels, prompts, index, settings.drop_prob if self.training else 0.0)
