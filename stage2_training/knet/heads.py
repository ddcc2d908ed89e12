"""K-Net's heads: `rpn_head` makes the first masks M^0 and kernels K^0, `roi_head` updates both stage by stage."""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from mmcv.cnn import ConvModule
from mmcv.cnn.bricks.transformer import FFN, MultiheadAttention
from mmdet.models.layers import SinePositionalEncoding
from mmdet.registry import MODELS
from mmengine.model import BaseModule, ModuleList, bias_init_with_prob, normal_init
from torch import Tensor, nn

from stage1_proposals.common.errors import UserError
from stage2_training.knet.updator import KernelUpdator


def group_features(features: Tensor, mask_logits: Tensor) -> Tensor:
    """Sum of the features over the pixels inside each mask, `sigmoid(mask_logits) > 0.5`.

    The sums run over thousands of pixels, so they are computed in float32 under autocast, too.

    Args:
        features: (B, C, H, W).
        mask_logits: (B, N, H, W). No gradient flows into the hard masks.

    Returns:
        float32 (B, N, C).
    """
    with torch.autocast(features.device.type, enabled=False):
        inside = (mask_logits > 0).float()
        return torch.einsum("bnhw,bchw->bnc", inside, features.float())


GROUP_NORM = {"type": "GN", "num_groups": 32}


def conv1x1(channels: int) -> ConvModule:
    """1x1 conv + GN + ReLU that keeps the number of channels."""
    return ConvModule(channels, channels, 1, norm_cfg=GROUP_NORM)


class SemanticFPN(BaseModule):
    """Resamples the four FPN levels to one stride, sums them and applies two 1x1 heads.

    A sine positional encoding is added to the coarsest level only; the sum carries it to every pixel.

    Args:
        channels: C, of every FPN level and both outputs; a multiple of 32, for group norm.
        stride: s of both outputs, 8 or 4; the parameters are the same.
        num_levels: FPN levels; level i has stride `4 * 2**i`.
    """

    def __init__(self, channels: int, stride: int = 8, num_levels: int = 4) -> None:
        super().__init__()
        self.positional_encoding = SinePositionalEncoding(channels // 2, normalize=True)
        self.convs_all_levels = nn.ModuleList(_level_convs(channels, level, stride) for level in range(num_levels))
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

        Both are (B, C, H/s, W/s). H and W must be multiples of 32, so that all levels align.
        """
        *finer, coarsest = feats
        no_padding = torch.zeros_like(coarsest[:, 0], dtype=torch.bool)
        levels = [*finer, coarsest + self.positional_encoding(no_padding)]
        merged = sum(convs(level) for convs, level in zip(self.convs_all_levels, levels, strict=True))
        return self.conv_pred(merged), self.aux_convs[0](merged)


def _level_convs(channels: int, level: int, stride: int) -> nn.Sequential:
    """3x3 blocks that resample FPN level `level` to a stride: from stride 4 down to 8, or up in steps of x2."""
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    doublings = {8: level - 1, 4: level}[stride]
    step = 2 if doublings < 0 else 1
    for i in range(max(level, 1)):
        layers[f"conv{i}"] = ConvModule(channels, channels, 3, stride=step, padding=1, norm_cfg=GROUP_NORM)
        if i < doublings:
            layers[f"upsample{i}"] = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False)
    return nn.Sequential(layers)


class KernelHeadOutput(NamedTuple):
    """What the update stages start from, at the stride s of masks."""

    features: Tensor  # (B, C, H/s, W/s), that update stages apply kernels to and sum over masks
    kernels: Tensor  # (B, N, C), K^0: initial kernels plus their group features
    mask_logits: Tensor  # (B, N, H/s, W/s), M^0
    seg_logits: Tensor  # (B, K, H/s, W/s), per-pixel class logits, for a training loss only


@MODELS.register_module()
class KernelHead(BaseModule):
    """Semantic FPN, N learned kernels, their masks and their group features.

    Args:
        num_kernels: N.
        num_classes: K.
        channels: C, of the FPN levels and the kernels.
        mask_stride: s, of masks and features, 8 or 4.

    Raises:
        UserError: another stride.
    """

    def __init__(self, num_kernels: int, num_classes: int, channels: int = 256, mask_stride: int = 8) -> None:
        super().__init__()
        if mask_stride not in (4, 8):
            raise UserError(f"rpn_head.mask_stride {mask_stride!r}: use 4 or 8")
        self.localization_fpn = SemanticFPN(channels, mask_stride)
        self.loc_convs = nn.ModuleList([conv1x1(channels)])
        self.seg_convs = nn.ModuleList([conv1x1(channels)])
        self.init_kernels = nn.Conv2d(channels, num_kernels, 1, bias=False)
        self.conv_seg = nn.Conv2d(channels, num_classes, 1)

    def init_weights(self) -> None:
        """Normal, std 0.01 for the convolutions and 1 for the kernels; class bias for a prior probability of 0.01."""
        super().init_weights()
        for module in (*self.loc_convs, *self.seg_convs):
            normal_init(module.conv, std=0.01)
        normal_init(self.init_kernels, std=1)
        normal_init(self.conv_seg, std=0.01, bias=bias_init_with_prob(0.01))

    @property
    def initial_kernels(self) -> Tensor:
        """(N, C): the learned, image-agnostic kernels."""
        return self.init_kernels.weight.flatten(1)

    def forward(
        self, feats: Sequence[Tensor], image_kernels: Callable[[Tensor], Tensor] | None = None
    ) -> KernelHeadOutput:
        """FPN levels at strides 4-32, each (B, C, ., .) -> `KernelHeadOutput`.

        Args:
            feats: the levels.
            image_kernels: from the localisation features (B, C, H/s, W/s), which kernels are multiplied with for the
                first masks, to kernels (B, N, C) of each image; None: the learned ones.
        """
        localization, semantic = self.localization_fpn(feats)
        localization = self.loc_convs[0](localization)
        semantic = self.seg_convs[0](semantic)
        if image_kernels is None:
            initial_kernels, mask_logits = self.initial_kernels, self.init_kernels(localization)
        else:
            initial_kernels = image_kernels(localization)
            mask_logits = torch.einsum("bnc,bchw->bnhw", initial_kernels, localization)
        features = localization + semantic
        kernels = initial_kernels + group_features(features, mask_logits)
        return KernelHeadOutput(features, kernels, mask_logits, self.conv_seg(semantic))


class StageOutput(NamedTuple):
    """The output of one update stage."""

    cls_logits: Tensor  # (B, N, K)
    mask_logits: Tensor  # (B, N, H/s, W/s)
    kernels: Tensor  # (B, N, C), K^i, which enter the next stage


class KernelUpdateStage(BaseModule):
    """One update: group features, kernel updator, self-attention over kernels, FFN, class and mask branches.

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
        """Update kernels and masks once.

        Args:
            features: (B, C, H/s, W/s), the same for every stage.
            kernels: (B, N, C), of the previous stage.
            mask_logits: (B, N, H/s, W/s), of the previous stage.
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


@MODELS.register_module()
class KernelIterHead(BaseModule):
    """A chain of `KernelUpdateStage`s, each with its own weights.

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
        self.mask_head = ModuleList(  # MMEngine's, which calls the stages' `init_weights`
            KernelUpdateStage(num_classes, channels, num_heads, ffn_channels, dropout) for _ in range(num_stages)
        )

    def forward(self, features: Tensor, kernels: Tensor, mask_logits: Tensor) -> list[StageOutput]:
        """Features (B, C, h, w), kernels (B, N, C) and masks M^0 (B, N, h, w) -> the S stages' outputs."""
        stages = []
        for update in self.mask_head:
            stages.append(update(features, kernels, mask_logits))
            _, mask_logits, kernels = stages[-1]
        return stages
