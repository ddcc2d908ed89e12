"""The frozen feature extractor of Eq. 3: any architecture of timm's, up to its last feature map."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from stage1_proposals.backbones.catalogue import CATALOGUE, architecture_of
from stage1_proposals.backbones.cell_offset import cell_offset, drop_shifted, shift_input
from stage1_proposals.backbones.weights import new_network, read_backbone_weights
from stage1_proposals.common.errors import UserError

PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}

# Size of a trial input, in cells of the feature map. Both numbers are prime, so that an architecture fails which needs
# a multiple of some number or one fixed size.
_TRIAL_CELLS = (5, 11)


class Trunk(nn.Module):
    """A timm network up to its last feature map, which earlier ones may be joined with.

    A ViT's feature map is its patch tokens after the final norm. A ViT that was trained on pooled tokens has that norm
    after the pooling, and its tokens stay as they are.

    Args:
        maps: how many of the last feature maps are joined.
        offset: of the cells, which is compensated, see `cell_offset`.
        stride: pixels per cell of the last map; needed with an offset.
    """

    def __init__(self, network: nn.Module, maps: int = 1, offset: int = 0, stride: int = 0) -> None:
        super().__init__()
        self.network: Any = network
        self.maps = maps
        self.offset = offset
        self.stride = stride

    def forward(self, images: Tensor) -> Tensor:
        """Map normalised images (B, 3, H, W) to features (B, D, H / stride, W / stride)."""
        if self.offset:
            images = shift_input(images, self.stride, self.offset)
        maps = self.network.forward_intermediates(images, indices=self.maps, norm=True, intermediates_only=True)
        features = join_maps(maps, corners=self.offset < 0)
        return drop_shifted(features, self.stride, images, self.offset) if self.offset else features


def join_maps(maps: Sequence[Tensor], corners: bool = False) -> Tensor:
    """Join feature maps into one of the finest's size, where each counts as much in a cosine similarity.

    Args:
        maps: (B, D_i, h_i, w_i), the finest first; its sides are multiples of the others'. A single one is returned as
            it is.
        corners: whether cells look at their upper left corners, which lie elsewhere in each map than the centres.

    Returns:
        (B, sum of D_i, h_0, w_0): each cell's features, L2-normalised for each map, coarser maps interpolated.
    """
    if len(maps) == 1:
        return maps[0]
    resize = _resize_corners if corners else _resize_centres
    rows, columns = maps[0].shape[2:]
    resized = [maps[0], *(resize(one, rows, columns) for one in maps[1:])]
    return torch.cat([F.normalize(one, dim=1) for one in resized], 1)


def _resize_centres(features: Tensor, rows: int, columns: int) -> Tensor:
    return F.interpolate(features, (rows, columns), mode="bilinear", align_corners=False)


def _resize_corners(features: Tensor, rows: int, columns: int) -> Tensor:
    """Interpolate between the cells' upper left corners: the corner of a coarse cell is that of a fine one, too."""
    beyond = F.pad(features, (0, 1, 0, 1), mode="replicate")
    return F.interpolate(beyond, (rows + 1, columns + 1), mode="bilinear", align_corners=True)[:, :, :-1, :-1]


@dataclass(frozen=True)
class BackboneSpec:
    """What stage 1 must know of a backbone.

    Attributes:
        architecture: timm's name.
        feature_dim: D, channels of the last feature map, or of all that are joined.
        stride: input pixels per cell of the finest of these maps; a ViT's patch size.
        maps: how many of the last feature maps are joined.
        offset: how far from their centres the network's cells look, in pixels, which the trunk compensates.
        input_step: the input's sides are multiples of this, the stride of the last map.
        mean, std: input normalisation, in units of 0-255 RGB.
    """

    architecture: str
    feature_dim: int
    stride: int
    maps: int
    offset: int
    input_step: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


def get_spec(name: str, feature_stride: int | None = None) -> BackboneSpec:
    """Return the specification of a backbone of the catalogue or of timm's.

    Args:
        feature_stride: join the last feature map with earlier ones, down to this many input pixels per cell; None: only
            the last. A ViT's maps are all of one size, and it keeps its last.

    Raises:
        UserError: unknown name, or an architecture without one feature per cell at any input size.
    """
    architecture = architecture_of(name)
    spec = _measure(architecture, feature_stride)
    if name in CATALOGUE:
        spec = replace(spec, mean=CATALOGUE[name].mean, std=CATALOGUE[name].std)
    return spec


@cache
def _measure(architecture: str, feature_stride: int | None) -> BackboneSpec:
    """Return the specification with timm's normalisation, by a pass on the meta device (without computation).

    Only `offset` is measured with random weights.
    """
    with torch.device("meta"):
        network: Any = new_network(architecture)
        strides = [info["reduction"] for info in network.feature_info]
        stride = strides[-1]
        maps = 1
        while feature_stride and maps < len(strides) and feature_stride <= strides[-maps - 1] < strides[-maps]:
            maps += 1
        rows, columns = _TRIAL_CELLS
        try:
            features = Trunk(network, maps).eval()(torch.empty(1, 3, stride * rows, stride * columns))
        except Exception as error:  # each architecture refuses a size with another exception
            raise UserError(
                f"backbone {architecture} cannot be used: stage 1 needs a feature map of an image of any size in steps "
                f"of {stride} pixels, and {stride * rows} x {stride * columns} is refused "
                f"({type(error).__name__}: {error})"
            ) from error
    finest = strides[-maps]
    cells = (stride // finest * rows, stride // finest * columns)
    if features.shape[2:] != cells:
        raise UserError(
            f"backbone {architecture} cannot be used: stage 1 needs one cell of the feature map for every {finest} "
            f"pixels, so {cells[0]} x {cells[1]} here, and gets {features.shape[2]} x {features.shape[3]}"
        )
    mean, std = (tuple(255 * value for value in network.pretrained_cfg[key]) for key in ("mean", "std"))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        # Of the last map: cells of earlier ones look at the same part of themselves, and any network takes this input.
        offset = cell_offset(Trunk(new_network(architecture)).eval(), stride) * finest // stride
    return BackboneSpec(architecture, features.shape[1], finest, maps, offset, stride, mean, std)


class FeatureExtractor(nn.Module):
    """A frozen backbone that maps images to its last feature map X (Sec. 3.2), which earlier ones may be joined with.

    Attributes:
        dtype: the precision in which the trunk computes.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, trunk: nn.Module, spec: BackboneSpec) -> None:
        super().__init__()
        self.trunk = trunk
        self.dtype = torch.float32
        self.spec = spec
        self.register_buffer("mean", torch.tensor(spec.mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(spec.std).view(1, 3, 1, 1), persistent=False)
        self.requires_grad_(False).eval()

    @torch.inference_mode()
    def forward(self, images: Tensor) -> Tensor:
        """Map RGB images (B, 3, H, W), 0-255, to features float32 (B, D, H / stride, W / stride)."""
        return self.trunk(((images.float() - self.mean) / self.std).to(self.dtype)).float()


def build_extractor(
    name: str, weights: str | Path | None = None, feature_stride: int | None = None
) -> FeatureExtractor:
    """Build the feature extractor of a backbone of the catalogue or of timm's, on the CPU; see `get_spec`.

    Raises:
        UserError: unknown name, an architecture that cannot be used, or weights that are missing or do not fit.
    """
    spec = get_spec(name, feature_stride)
    network = new_network(spec.architecture)
    network.load_state_dict(read_backbone_weights(name, weights))
    return FeatureExtractor(Trunk(network, spec.maps, spec.offset, spec.input_step), spec)


def fastest_precision(device: str) -> str:
    """The fastest precision that the device multiplies natively; of a cluster's GPUs, bfloat16."""
    is_native = device == "cuda" and (
        not torch.cuda.is_available() or torch.cuda.is_bf16_supported(including_emulation=False)
    )
    return "bfloat16" if is_native else "float32"


def speed_up(extractor: FeatureExtractor, precision: str) -> FeatureExtractor:
    """Make an extractor faster, in place: fold batch norms, store channels last, compute in `precision`.

    Args:
        precision: `float32`, or `bfloat16` for hardware that multiplies it natively.
    """
    extractor.dtype = PRECISIONS[precision]
    trunk = fold_batch_norms(extractor.trunk)
    extractor.trunk = trunk.to(dtype=extractor.dtype, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return extractor


class _Tracer(fx.Tracer):
    """Traces a network without entering convolutions and batch norms, including a library's subclasses of them."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, nn.Conv2d | nn.BatchNorm2d) or super().is_leaf_module(m, module_qualified_name)


def fold_batch_norms(network: nn.Module) -> nn.Module:
    """Return the network with each batch norm folded into the convolution before it: one pass over the data less.

    A network whose control flow depends on its input cannot be traced and is returned as it is: transformers, which
    have no batch norms, and a few hybrids (MobileViT), which keep theirs.

    Args:
        network: in evaluation mode; not changed.
    """
    if not any(isinstance(module, nn.BatchNorm2d) for module in network.modules()):
        return network
    try:
        traced = fx.GraphModule(network, _Tracer().trace(network))
    except (fx.proxy.TraceError, TypeError, ValueError, RuntimeError):
        return network
    modules = dict(traced.named_modules())
    called = [node.target for node in traced.graph.nodes if node.op == "call_module"]
    for node in traced.graph.nodes:
        if node.op != "call_module" or not isinstance(norm := modules[node.target], nn.BatchNorm2d):
            continue
        source = node.args[0]
        conv = modules.get(source.target) if source.op == "call_module" else None
        has_one_use = len(source.users) == 1 and called.count(source.target) == called.count(node.target) == 1
        if isinstance(conv, nn.Conv2d) and has_one_use:
            traced.set_submodule(source.target, fuse_conv_bn_eval(conv, norm))
            # timm's norms include the activation after them.
            traced.set_submodule(node.target, getattr(norm, "act", nn.Identity()))
    return traced
