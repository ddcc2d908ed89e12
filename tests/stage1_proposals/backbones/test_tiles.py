"""Features of large images, tile by tile, are those of the whole image."""

from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from stage1_proposals.backbones.extractor import BackboneSpec, FeatureExtractor, build_extractor
from stage1_proposals.backbones.tiles import OVERLAP, tile_size, tile_starts, tiled_features, tiles


@given(st.integers(1, 200), st.integers(1, 40), st.sampled_from([1, 14, 32]))
def test_tiles_cover_a_side_with_overlap_in_whole_steps(cells: int, tile_cells: int, step: int) -> None:
    tile = min(cells, tile_cells) * step
    starts = tile_starts(cells * step, tile, step)
    assert starts[0] == 0
    assert starts[-1] + tile == cells * step
    assert all(start % step == 0 for start in starts)
    distances = [after - before for before, after in pairwise(starts)]
    assert all(0 < distance <= (1 - OVERLAP) * tile + step for distance in distances)


def test_an_input_that_fits_is_one_tile() -> None:
    assert list(tiles((64, 96), 96, 32)) == [(0, 0)]
    assert tile_size((64, 96), None, 32) == tile_size((64, 96), 100, 32) == (64, 96)
    assert list(tiles((64, 128), 96, 32)) == [(0, 0), (0, 32)]
    assert tile_size((640, 64), 20, 32) == (32, 32)  # at least one step


def pixels(height: int, width: int) -> torch.Tensor:
    return torch.randint(0, 256, (2, 3, height, width), generator=torch.Generator().manual_seed(0)).byte()


def test_features_that_look_nowhere_else_are_the_same() -> None:
    torch.manual_seed(0)
    spec = BackboneSpec("none", 5, 8, 1, 0, 16, (100.0, 100.0, 100.0), (50.0, 50.0, 50.0))
    extractor = FeatureExtractor(torch.nn.Conv2d(3, 5, 8, stride=8), spec)
    images = pixels(160, 112)
    torch.testing.assert_close(tiled_features(extractor, images, 70), extractor(images), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("feature_stride", [None, 16])
def test_features_of_a_network_hardly_differ(feature_stride: int | None) -> None:
    extractor = build_extractor("lite0_imagenet", None, feature_stride)
    images = pixels(1, 1)[:1] // 2 + torch.nn.functional.interpolate(pixels(8, 12)[:1].float() / 2, (512, 768)).byte()
    tiled, whole = tiled_features(extractor, images, 512), extractor(images)
    assert tiled.shape == whole.shape
    assert torch.cosine_similarity(tiled, whole, dim=1).mean() > 0.95
