"""One kernel update stage (`roi_head.mask_head.i`): kernels and masks in, better kernels and masks out."""

from typing import NamedTuple

import torch
from mmcv.cnn import ConvModule
from mmcv.cnn.bricks.transformer import FFN, MultiheadAttention
from mmengine.model import BaseModule, bias_init_with_prob
from torch import Tensor, nn

from stage2_training.knet.group_features import group_features
from stage2_training.knet.kernel_updator import KernelUpdator


class StageOutput(NamedTuple):
    """What one update stage predicts."""

    cls_logits: Tensor  # (B, N, K)
    mask_logits: Tensor  # (B, N, H/8, W/8)
    kernels: Tensor  # (B, N, C), K^i, handed on to the next stage


class KernelUpdateStage(BaseModule):
    """Group features -> kernel updator -> attention among kernels -> FFN -> class and mask branches.

    Args:
        num_classes: K.
        channels: C.
        num_heads: attention heads.
        ffn_channels: hidden width of the FFN.
        dropout: in attention and FFN.
    """

    def __init__(
        self, num_classes: int, channels: int = 256, num_heads: int = 8, ffn_channels: int = 2048, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.attention = MultiheadAttention(channels, num_heads, attn_drop=dropout, batch_first=True)
        self.attention_norm = nn.LayerNorm(channels)
        self.kernel_update_conv = KernelUpdator(channels)
        self.feat_transform = ConvModule(channels, channels, 1, act_cfg=None)
        self.ffn = FFN(channels, ffn_channels, ffn_drop=dropout)
        self.ffn_norm = nn.LayerNorm(channels)
        self.cls_fcs = _hidden_layer(channels)
        self.fc_cls = nn.Linear(channels, num_classes)
        self.mask_fcs = _hidden_layer(channels)
        self.fc_mask = nn.Linear(channels, channels)

    def init_weights(self) -> None:
        """Xavier for every weight matrix; class bias for a prior probability of 0.01."""
        super().init_weights()
        for parameter in self.parameters():
            if parameter.dim() > 1:
                nn.init.xavier_uniform_(parameter)
        nn.init.constant_(self.fc_cls.bias, bias_init_with_prob(0.01))

    def forward(self, features: Tensor, kernels: Tensor, mask_logits: Tensor) -> StageOutput:
        """One update.

        Args:
            features: (B, C, H/8, W/8), the same for every stage.
            kernels: (B, N, C), from the stage before.
            mask_logits: (B, N, H/8, W/8), from the stage before.
        """
        features = self.feat_transform(features)
        kernels = self.kernel_update_conv(group_features(features, mask_logits), kernels)
        kernels = self.attention_norm(self.attention(kernels))
        kernels = self.ffn_norm(self.ffn(kernels))
        mask_kernels = self.fc_mask(self.mask_fcs(kernels))
        return StageOutput(
            cls_logits=self.fc_cls(self.cls_fcs(kernels)),
            mask_logits=torch.einsum("bnc,bchw->bnhw", mask_kernels, features),
            kernels=kernels,
        )


def _hidden_layer(channels: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(channels, channels, bias=False), nn.LayerNorm(channels), nn.ReLU())
