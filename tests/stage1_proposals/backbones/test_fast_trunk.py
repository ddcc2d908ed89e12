"""Speed changes nothing but the last bits."""

import timm
import torch
from torch import nn

from stage1_proposals.backbones.extractor import (
    BackboneSpec,
    FeatureExtractor,
    Trunk,
    build_extractor,
    fold_batch_norms,
    speed_up,
)


def random_network(name: str) -> nn.Module:
    """With statistics that are not those of a new batch norm."""
    torch.manual_seed(0)
    network = timm.create_model(name, num_classes=0)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -0.2, 0.2)
            nn.init.uniform_(module.running_var, 0.5, 2)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.2, 0.2)
    return network.eval().requires_grad_(False)


def batch_norms(network: nn.Module) -> int:
    return sum(isinstance(module, nn.BatchNorm2d) for module in network.modules())


def relative_difference(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found - expected).abs().max() / expected.abs().max())


def test_folded_networks_compute_the_same() -> None:
    """timm's norms with activations inside, plain ones, and a stem convolution that pads by its input's size."""
    images = torch.randn(2, 3, 96, 64, generator=torch.Generator().manual_seed(0))
    for name, maps in (("test_resnet", 1), ("test_efficientnet", 1), ("tf_efficientnet_lite0", 2), ("resnet18", 3)):
        network = Trunk(random_network(name), maps)
        folded = fold_batch_norms(network)
        assert batch_norms(network) > batch_norms(folded) == 0
        assert relative_difference(folded(images), network(images)) < 1e-5


def test_networks_without_batch_norms_stay_as_they_are() -> None:
    network = Trunk(random_network("test_vit"))
    assert fold_batch_norms(network) is network


class Twice(nn.Module):
    """One convolution whose output is used beside its norm, one that is used twice with different norms."""

    def __init__(self) -> None:
        super().__init__()
        self.beside, self.shared = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1)
        self.norms = nn.ModuleList(nn.BatchNorm2d(3) for _ in range(3))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        first = self.beside(images)
        first = first + self.norms[0](first)
        return self.norms[1](self.shared(first)) + self.norms[2](self.shared(images))


def test_a_convolution_with_another_use_keeps_its_norm() -> None:
    network = Twice().eval()
    for norm in network.norms:
        assert isinstance(norm, nn.BatchNorm2d)
        nn.init.uniform_(norm.running_var, 0.5, 2)
    folded, images = fold_batch_norms(network), torch.randn(1, 3, 4, 4)
    assert batch_norms(folded) == 3
    assert torch.equal(folded(images), network(images))


def test_the_bundled_backbone_sped_up_gives_the_same_features() -> None:
    images = torch.randint(0, 256, (2, 3, 96, 128), dtype=torch.uint8)
    expected = build_extractor("lite0_imagenet")(images)
    assert relative_difference(speed_up(build_extractor("lite0_imagenet"), "float32")(images), expected) < 1e-4
    half = speed_up(build_extractor("lite0_imagenet"), "bfloat16")(images)
    assert half.dtype == torch.float32
    assert 1e-4 < relative_difference(half, expected) < 0.1


def test_precision_is_of_the_trunk_alone() -> None:
    spec = BackboneSpec("none", 3, 1, 1, 0, 1, (1.0, 2.0, 3.0), (3.0, 3.0, 3.0))
    extractor = speed_up(FeatureExtractor(nn.Conv2d(3, 3, 1), spec), "bfloat16")
    assert (extractor.dtype, extractor.mean.dtype) == (torch.bfloat16, torch.float32)
