"""Making a frozen backbone fast without changing what it computes: batch norms folded, memory format, precision."""

import torch
from torch import fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from stage1_proposals.backbones import FeatureExtractor

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
