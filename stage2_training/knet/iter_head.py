"""K-Net's iterative head (`roi_head`): the update stages, one after the other."""

from mmdet.registry import MODELS
from mmengine.model import BaseModule, ModuleList
from torch import Tensor

from stage2_training.knet.update_stage import KernelUpdateStage, StageOutput


@MODELS.register_module()
class KernelIterHead(BaseModule):
    """A chain of `KernelUpdateStage`s with their own weights.

    Args:
        num_stages: S.
        num_classes: K.
        channels: C.
        num_heads, ffn_channels, dropout: see `KernelUpdateStage`.
    """

    def __init__(
        self,
        num_classes: int,
        num_stages: int = 3,
        channels: int = 256,
        num_heads: int = 8,
        ffn_channels: int = 2048,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.mask_head = ModuleList(  # MMEngine's, whose `init_weights` reaches the stages
            KernelUpdateStage(num_classes, channels, num_heads, ffn_channels, dropout) for _ in range(num_stages)
        )

    def forward(self, features: Tensor, kernels: Tensor, mask_logits: Tensor) -> list[StageOutput]:
        """Features (B, C, h, w), kernels (B, N, C) and masks M^0 (B, N, h, w) -> the S stages' outputs."""
        stages = []
        for update in self.mask_head:
            stages.append(update(features, kernels, mask_logits))
            _, mask_logits, kernels = stages[-1]
        return stages
