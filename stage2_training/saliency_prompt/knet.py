"""Saliency Prompt pre-training of K-Net."""

from collections.abc import Sequence
from typing import Any

from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmdet.utils import ConfigType
from torch import Tensor

from stage1_proposals.errors import UserError
from stage2_training.knet.detector import KNet
from stage2_training.knet.kernel_head import KernelHeadOutput
from stage2_training.saliency_prompt.detector import SaliencyPromptMixin


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
