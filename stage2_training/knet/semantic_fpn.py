"""Semantic FPN: merges the FPN levels into one localization and one semantic map at stride 8."""

from collections import OrderedDict
from collections.abc import Sequence

import torch
from mmcv.cnn import ConvModule
from mmdet.models.layers import SinePositionalEncoding
from mmengine.model import BaseModule, normal_init
from torch import Tensor, nn

GROUP_NORM = {"type": "GN", "num_groups": 32}


def conv1x1(channels: int) -> ConvModule:
    """1x1 conv + GN + ReLU that keeps the number of channels."""
    return ConvModule(channels, channels, 1, norm_cfg=GROUP_NORM)


class SemanticFPN(BaseModule):
    """The four FPN levels, brought to stride 8 and summed, under two 1x1 heads.

    A sine positional encoding is added to the coarsest level only: the sum carries it to every pixel.

    Args:
        channels: C, of every FPN level and both outputs; a multiple of 32 (group norm).
        num_levels: FPN levels; level i has stride `4 * 2**i`.
    """

    def __init__(self, channels: int, num_levels: int = 4) -> None:
        super().__init__()
        self.positional_encoding = SinePositionalEncoding(channels // 2, normalize=True)
        self.convs_all_levels = nn.ModuleList(_level_convs(channels, level) for level in range(num_levels))
        self.conv_pred = conv1x1(channels)
        self.aux_convs = nn.ModuleList([conv1x1(channels)])

    def init_weights(self) -> None:
        """Normal with standard deviation 0.01 for every convolution."""
        super().init_weights()
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                normal_init(module, std=0.01)

    def forward(self, feats: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """FPN levels (B, C, H/4, W/4) ... (B, C, H/32, W/32) -> localization and semantic features.

        Both are (B, C, H/8, W/8). H and W are multiples of 32, so that the levels meet exactly.
        """
        *finer, coarsest = feats
        no_padding = torch.zeros_like(coarsest[:, 0], dtype=torch.bool)
        levels = [*finer, coarsest + self.positional_encoding(no_padding)]
        merged = sum(convs(level) for convs, level in zip(self.convs_all_levels, levels, strict=True))
        return self.conv_pred(merged), self.aux_convs[0](merged)


def _level_convs(channels: int, level: int) -> nn.Sequential:
    """3x3 blocks that take FPN level `level` to stride 8: down from 4, or up by x2 steps."""
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    stride = 2 if level == 0 else 1
    blocks = max(level, 1)
    for i in range(blocks):
        layers[f"conv{i}"] = ConvModule(channels, channels, 3, stride=stride, padding=1, norm_cfg=GROUP_NORM)
        if i < level - 1:
            layers[f"upsample{i}"] = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False)
    return nn.Sequential(layers)
