import torch
from torch import Tensor, nn

from stage2_training.knet.updator import KernelUpdator


def norm(layer: nn.LayerNorm, x: Tensor) -> Tensor:
    centred = x - x.mean()
    return centred / (centred.square().mean() + layer.eps).sqrt() * layer.weight + layer.bias


def linear(layer: nn.Linear, x: Tensor) -> Tensor:
    return layer.weight @ x + layer.bias


def test_each_kernel_is_mixed_with_its_group_feature() -> None:
    torch.manual_seed(0)
    updator = KernelUpdator(8)
    for parameter in updator.parameters():
        nn.init.normal_(parameter)
    groups, kernels = torch.randn(2, 3, 8), torch.randn(2, 3, 8)
    actual = updator(groups, kernels)
    for image in range(2):
        for n in range(3):
            a = linear(updator.dynamic_layer, groups[image, n])
            b = linear(updator.input_layer, kernels[image, n])
            gate = b[:8] * a[:8]
            update = torch.sigmoid(norm(updator.norm_in, linear(updator.update_gate, gate)))
            keep = torch.sigmoid(norm(updator.input_norm_in, linear(updator.input_gate, gate)))
            mixed = update * norm(updator.norm_out, a[8:]) + keep * norm(updator.input_norm_out, b[8:])
            expected = torch.relu(norm(updator.fc_norm, linear(updator.fc_layer, mixed)))
            torch.testing.assert_close(actual[image, n], expected, rtol=1e-4, atol=1e-5)
