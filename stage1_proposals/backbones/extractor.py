"""The frozen feature extractor of Eq. 3: any architecture of timm's, up to its last feature map."""

import inspect
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from stage1_proposals.backbones.catalogue import CATALOGUE, architecture_of
from stage1_proposals.backbones.weights import fit_by_name, locate_weights, name_by_position, read_tensors, strip_prefix
from stage1_proposals.common.errors import UserError

# In cells of the feature map. Both prime, so that nothing which asks for a multiple, or one fixed size, passes.
_PROBE = (5, 11)


@dataclass(frozen=True)
class BackboneSpec:
    """What the job must know of a backbone.

    Attributes:
        architecture: timm's name.
        feature_dim: D, channels of the last feature map.
        stride: pixels of the input per cell of the last feature map; a ViT's patch size.
        mean, std: input normalisation, in units of 0-255 RGB.
    """

    architecture: str
    feature_dim: int
    stride: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


def get_spec(name: str) -> BackboneSpec:
    """The specification of a backbone of the catalogue or of timm's.

    Raises:
        UserError: unknown name, or an architecture without one feature per cell at any input size.
    """
    architecture = architecture_of(name)
    feature_dim, stride, mean, std = _measure(architecture)
    if name in CATALOGUE:
        mean, std = CATALOGUE[name].mean, CATALOGUE[name].std
    return BackboneSpec(architecture, feature_dim, stride, mean, std)


@cache
def _measure(architecture: str) -> tuple[int, int, Any, Any]:
    """D, stride, and timm's mean and std times 255, by a pass without memory or arithmetic."""
    with torch.device("meta"):
        network: Any = new_network(architecture)
        stride = network.feature_info[-1]["reduction"]
        rows, columns = _PROBE
        try:
            features = Trunk(network).eval()(torch.empty(1, 3, stride * rows, stride * columns))
        except Exception as error:  # each network refuses a size in its own way
            raise UserError(
                f"backbone {architecture} cannot be used: stage 1 needs a feature map of an image of any size in steps "
                f"of {stride} pixels, and {stride * rows} x {stride * columns} is refused "
                f"({type(error).__name__}: {error})"
            ) from error
    if features.shape[2:] != _PROBE:
        raise UserError(
            f"backbone {architecture} cannot be used: stage 1 needs one cell of the feature map for every {stride} "
            f"pixels, so {rows} x {columns} here, and gets {features.shape[2]} x {features.shape[3]}"
        )
    mean, std = (tuple(255 * value for value in network.pretrained_cfg[key]) for key in ("mean", "std"))
    return features.shape[1], stride, mean, std


def new_network(architecture: str) -> nn.Module:
    """timm's network with random weights, without its classifier, and for any input size where it has a switch."""
    import timm  # seconds: not before a backbone is wanted

    with torch.device("meta"):
        bases = type(timm.create_model(architecture, pretrained=False, num_classes=0)).__mro__[:-1]
    switched = any("dynamic_img_size" in inspect.signature(base).parameters for base in bases)
    options: dict[str, Any] = {"dynamic_img_size": True} if switched else {}
    return timm.create_model(architecture, pretrained=False, num_classes=0, **options)


def read_backbone_weights(name: str, weights: str | Path | None = None) -> dict[str, Tensor]:
    """A backbone's state dict in its architecture's own names, classifier left out.

    Raises:
        UserError: the file is missing, unreadable, holds more than tensors, or leaves a tensor unfilled.
    """
    path, architecture = locate_weights(name, weights), architecture_of(name)
    with torch.device("meta"):
        network = new_network(architecture)
    expected = network.state_dict()
    tensors = strip_prefix(read_tensors(path), expected)
    fit = fit_by_name(tensors, expected)
    if fit.missing:  # a file of other names; one of other shapes is another network's
        others = [_in_timms_names(tensors, network, architecture)]
        if architecture == CATALOGUE["lite0_imagenet"].architecture:  # the bundled file has other names, in order
            others.append(name_by_position(tensors, expected))
        fit = max(fit, *(fit_by_name(other, expected) for other in others), key=lambda fit: len(fit.found))
    problems = fit.missing + fit.misshapen
    if problems:
        shown = ", ".join(problems[:5]) + (", ..." if len(problems) > 5 else "")
        raise UserError(
            f"{path}: does not fit {name} ({architecture}): {len(problems)} of {len(expected)} tensors are "
            f"missing or of another shape: {shown}"
        )
    return fit.found


def _in_timms_names(tensors: dict[str, Tensor], network: nn.Module, architecture: str) -> Mapping[str, Tensor]:
    """Weights as a network's authors release them (CLIP, DINOv2, Swin, ConvNeXt, ...) by timm's own converter, if any.

    It stands in the file that defines the architecture, under the same name nearly everywhere.
    """
    import timm

    convert = getattr(sys.modules[timm.model_entrypoint(architecture).__module__], "checkpoint_filter_fn", None)
    if convert is None:
        return {}
    try:
        return convert(dict(tensors), network)
    except Exception:  # it raises nearly anything on another network's tensors, which are refused by name then
        return {}


class Trunk(nn.Module):
    """A timm network up to its last feature map.

    A ViT's are its patch tokens after the final norm; one trained on pooled tokens has that norm behind the pooling,
    and its tokens stay as they are.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network: Any = network

    def forward(self, images: Tensor) -> Tensor:
        """Normalised images (B, 3, H, W) to features (B, D, H / stride, W / stride)."""
        return self.network.forward_intermediates(images, indices=1, norm=True, intermediates_only=True)[0]


class FeatureExtractor(nn.Module):
    """A frozen backbone up to its last feature map X (Sec. 3.2).

    Attributes:
        dtype: that the trunk computes in.
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
        """RGB images (B, 3, H, W), 0-255, to features float32 (B, D, H / stride, W / stride)."""
        return self.trunk(((images.float() - self.mean) / self.std).to(self.dtype)).float()


def build_backbone(name: str, weights: str | Path | None = None) -> FeatureExtractor:
    """The frozen feature extractor of a backbone of the catalogue or of timm's, on CPU.

    Raises:
        UserError: unknown name, an architecture that does not fit, or weights that are missing or do not fit.
    """
    spec = get_spec(name)
    network = new_network(spec.architecture)
    network.load_state_dict(read_backbone_weights(name, weights))
    return FeatureExtractor(Trunk(network), spec)


PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}


class _Tracer(fx.Tracer):
    """Convolutions and batch norms stay whole, a library's subclasses of them too."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, nn.Conv2d | nn.BatchNorm2d) or super().is_leaf_module(m, module_qualified_name)


def fold_batch_norms(network: nn.Module) -> nn.Module:
    """The network with each batch norm that follows a convolution made part of it.

    One pass over every feature map less. A network whose course depends on its input cannot be followed and
    is returned as it is: transformers, which have no batch norms, and a few hybrids (MobileViT), which keep theirs.

    Args:
        network: in evaluation mode; left as it is.
    """
    if not any(isinstance(module, nn.BatchNorm2d) for module in network.modules()):
        return network
    try:
        traced = fx.GraphModule(network, _Tracer().trace(network))
    except (fx.proxy.TraceError, TypeError, ValueError, RuntimeError):
        return network
    modules = dict(traced.named_modules())
    uses = [node.target for node in traced.graph.nodes if node.op == "call_module"]
    for node in traced.graph.nodes:
        if node.op != "call_module" or not isinstance(norm := modules[node.target], nn.BatchNorm2d):
            continue
        source = node.args[0]
        conv = modules.get(source.target) if source.op == "call_module" else None
        alone = len(source.users) == 1 and uses.count(source.target) == uses.count(node.target) == 1
        if isinstance(conv, nn.Conv2d) and alone:
            traced.set_submodule(source.target, fuse_conv_bn_eval(conv, norm))
            # timm's norms carry the activation that follows them.
            traced.set_submodule(node.target, getattr(norm, "act", nn.Identity()))
    return traced


def speed_up(extractor: FeatureExtractor, precision: str) -> FeatureExtractor:
    """Make an extractor as fast as this machine runs it: batch norms folded, channels last.

    Args:
        precision: `float32`, or `bfloat16` for hardware that multiplies it natively.
    """
    extractor.dtype = PRECISIONS[precision]
    trunk = fold_batch_norms(extractor.trunk)
    extractor.trunk = trunk.to(dtype=extractor.dtype, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return extractor
