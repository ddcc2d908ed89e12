"""Cells look at their own centres, whatever a network's padding does."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from stage1_proposals.backbones.cell_offset import cell_offset, measure_offset
from stage1_proposals.backbones.extractor import Trunk, build_extractor, fold_batch_norms, get_spec, join_maps
from stage1_proposals.backbones.weights import new_network


class Convolutions(nn.Module):
    """Strided convolutions with a kernel, a stride and a padding, each weight 1."""

    def __init__(self, *layers: tuple[int, int, int]) -> None:
        super().__init__()
        self.layers = nn.Sequential(*(nn.Conv2d(3, 3, k, s, padding=p, bias=False) for k, s, p in layers))
        for weight in self.parameters():
            nn.init.ones_(weight)

    def forward(self, images: Tensor) -> Tensor:
        return self.layers(images)


@pytest.mark.parametrize(
    ("layers", "stride", "expected"),
    [
        (((3, 2, 1),) * 3, 8, -3.5),
        (((7, 4, 3),), 4, -1.5),
        (((4, 4, 0),), 4, 0),
    ],
)
def test_the_measured_offset_is_that_of_the_arithmetic(
    layers: tuple[tuple[int, int, int], ...], stride: int, expected: float
) -> None:
    network = Convolutions(*layers)
    assert measure_offset(network, stride) == pytest.approx(expected, abs=0.01)
    assert cell_offset(network, stride) == (-stride // 2 if expected else 0)


@pytest.mark.parametrize(
    ("name", "feature_stride", "offset"),
    [("resnet18", None, -16), ("resnet18", 16, -8), ("lite0_imagenet", None, 0), ("vit_tiny_patch16_224", None, 0)],
)
def test_resnets_have_one_and_others_have_none(name: str, feature_stride: int | None, offset: int) -> None:
    assert get_spec(name, feature_stride).offset == offset


@pytest.mark.parametrize("feature_stride", [None, 16])
def test_cells_of_a_backbone_look_at_their_centres(tmp_path: Path, feature_stride: int | None) -> None:
    torch.manual_seed(0)
    torch.save(new_network("resnet18").state_dict(), tmp_path / "weights.pth")
    extractor = build_extractor("resnet18", tmp_path / "weights.pth", feature_stride)
    stride = extractor.spec.stride
    assert extractor(torch.rand(1, 3, 96, 160)).shape[2:] == (96 // stride, 160 // stride)
    size = 32 // stride
    before = Trunk(extractor.trunk.network, extractor.spec.maps)
    if feature_stride is None:
        assert abs(measure_offset(before, stride)) > 12
        assert abs(measure_offset(extractor.trunk, stride)) < 4
    folded = fold_batch_norms(extractor.trunk)
    images = torch.randn(1, 3, 64, 96)
    assert torch.allclose(folded(images), extractor.trunk(images), atol=1e-4)
    assert folded(images).shape[2:] == (2 * size, 3 * size)


@pytest.mark.parametrize("corners", [True, False])
def test_joined_maps_look_at_the_same_places(corners: bool) -> None:
    def looks_at(rows: int, columns: int, stride: int) -> Tensor:
        """Features that say where cells look, as angles, which interpolation between two halves."""
        y, x = (stride * (torch.arange(count) + (0 if corners else 0.5)) / 1000 for count in (rows, columns))
        angle = y[:, None] + 2 * x
        return torch.stack([angle.cos(), angle.sin()])[None]

    joined = join_maps([looks_at(8, 12, 16), looks_at(4, 6, 32)], corners)
    assert joined.shape == (1, 4, 8, 12)
    inner = joined[:, :, 1:-1, 1:-1] if not corners else joined[:, :, :-1, :-1]
    assert torch.allclose(*inner.chunk(2, 1), atol=1e-3)
