"""K-Net's first head (`rpn_head`): initial kernels, their masks M^0 and the per-image kernels K^0."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from mmdet.registry import MODELS
from mmengine.model import BaseModule, bias_init_with_prob, normal_init
from torch import Tensor, nn

from stage2_training.knet.group_features import group_features
from stage2_training.knet.semantic_fpn import SemanticFPN, conv1x1


class KernelHeadOutput(NamedTuple):
    """What the update stages start from; spatial sizes are those of stride 8."""

    features: Tensor  # (B, C, H/8, W/8), the map that kernels are applied to and grouped over
    kernels: Tensor  # (B, N, C), those that enter the first update stage: initial kernel + its group features
    mask_logits: Tensor  # (B, N, H/8, W/8), M^0
    seg_logits: Tensor  # (B, K, H/8, W/8), per-pixel classes, used by a training loss only


@MODELS.register_module()
class KernelHead(BaseModule):
    """Semantic FPN, N learned kernels, and what they see in the image.

    Args:
        num_kernels: N.
        num_classes: K.
        channels: C, of the FPN levels and the kernels.
    """

    def __init__(self, num_kernels: int, num_classes: int, channels: int = 256) -> None:
        super().__init__()
        self.localization_fpn = SemanticFPN(channels)
        self.loc_convs = nn.ModuleList([conv1x1(channels)])
        self.seg_convs = nn.ModuleList([conv1x1(channels)])
        self.init_kernels = nn.Conv2d(channels, num_kernels, 1, bias=False)
        self.conv_seg = nn.Conv2d(channels, num_classes, 1)

    def init_weights(self) -> None:
        """Normal: 0.01 for the convolutions, 1 for the kernels; prior probability 0.01 for the classes."""
        super().init_weights()
        for module in (*self.loc_convs, *self.seg_convs):
            normal_init(module.conv, std=0.01)
        normal_init(self.init_kernels, std=1)
        normal_init(self.conv_seg, std=0.01, bias=bias_init_with_prob(0.01))

    @property
    def initial_kernels(self) -> Tensor:
        """(N, C): the learned, image-agnostic kernels."""
        return self.init_kernels.weight.flatten(1)

    def forward(self, feats: Sequence[Tensor], initial_kernels: Tensor | None = None) -> KernelHeadOutput:
        """FPN levels at strides 4-32, each (B, C, ., .) -> `KernelHeadOutput`.

        Args:
            feats: the levels.
            initial_kernels: (B, N, C), in place of the learned ones, which are the same for every image.
        """
        localization, semantic = self.localization_fpn(feats)
        localization = self.loc_convs[0](localization)
        semantic = self.seg_convs[0](semantic)
        if initial_kernels is None:
            initial_kernels, mask_logits = self.initial_kernels, self.init_kernels(localization)
        else:
            mask_logits = torch.einsum("bnc,bchw->bnhw", initial_kernels, localization)
        features = localization + semantic
        kernels = initial_kernels + group_features(features, mask_logits)
        return KernelHeadOutput(features, kernels, mask_logits, self.conv_seg(semantic))
