"""Saliency Prompt pre-training of K-Net."""

from collections.abc import Sequence
from typing import Any

from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmdet.utils import ConfigType
from torch import Tensor

from stage2_training.knet.detector import KNet
from stage2_training.knet.kernel_head import KernelHeadOutput
from stage2_training.saliency_prompt.detector import SaliencyPromptMixin


@MODELS.register_module()
class SaliencyPromptKNet(SaliencyPromptMixin, KNet):
    """K-Net whose kernels, in training only, get prompts before the first update stage and a loss after each.

    Args:
        saliency_prompt: fields of `SaliencyPromptSettings`.
        kwargs: those of `KNet`.
    """

    def __init__(self, saliency_prompt: ConfigType, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.init_saliency_prompt(saliency_prompt, self.rpn_head.initial_kernels.shape[1])
        self.settings.check_level(len(self.rpn_head.localization_fpn.convs_all_levels))

    def loss(self, batch_inputs: Tensor, batch_data_samples: Sequence[DetDataSample]) -> dict[str, Tensor]:
        """K-Net's losses and `s0.loss_kernel`, `s1.loss_kernel`, ... (Eq. 9)."""
        losses, stages, assignments = self.training_pass(batch_inputs, batch_data_samples)
        kernels = [stage.kernels for stage in stages]
        return losses | self.kernel_losses(kernels, assignments, batch_data_samples)

    def decorate_kernels(
        self, initial: KernelHeadOutput, feats: Sequence[Tensor], batch_data_samples: Sequence[DetDataSample]
    ) -> Tensor:
        """Add to each kernel its best-matched prompt (Eq. 5-8)."""
        learned = self.settings.match_on == "initial"
        reference = self.rpn_head.initial_kernels if learned else initial.kernels
        return self.prompted(initial.kernels, reference, feats, batch_data_samples)
