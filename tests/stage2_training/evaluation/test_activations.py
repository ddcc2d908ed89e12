import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from stage1_proposals.common.errors import UserError
from stage2_training.evaluation.activations import (
    draw_activations,
    location_entropy,
    map_grid,
    mean_maps,
    mean_overlap,
    min_max_normalise,
)


def spots(*places: tuple[int, int], side: int = 22) -> np.ndarray:
    """Maps with one spot of 2 x 2 pixels each, whose upper left pixel is at (row, column)."""
    maps = np.full((len(places), side, side), 0.1)
    for spot_map, (row, column) in zip(maps, places, strict=True):
        spot_map[row : row + 2, column : column + 2] = 0.7
    return maps


def test_the_mean_is_over_all_images_of_all_batches():
    batches = [torch.rand(size, 3, 4, 4) for size in (2, 1, 3)]
    average = mean_maps(iter(batches))
    np.testing.assert_allclose(average.maps, torch.cat(batches).double().mean(0), rtol=1e-12)
    assert average.images == 6
    assert average.numbers() == {
        "images": 6,
        "queries": 3,
        "overlap": mean_overlap(average.maps),
        "entropy": location_entropy(average.maps),
    }
    with pytest.raises(UserError, match="no images"):
        mean_maps([])


def test_overlap_is_1_for_equal_maps_and_0_for_disjoint_maps():
    assert mean_overlap(spots((2, 2), (2, 2), (2, 2))) == 1
    assert mean_overlap(spots((0, 0), (10, 4), (6, 16))) == 0
    assert mean_overlap(spots((0, 0), (0, 1))) == pytest.approx(2 / 6)  # of 2 x 2 pixels each, two are shared
    assert mean_overlap(spots((0, 0), (0, 0), (6, 6))) == pytest.approx(1 / 3)
    assert mean_overlap(np.zeros((2, 5, 5))) == mean_overlap(spots((0, 0))) == 1
    assert mean_overlap(np.concatenate([spots((0, 0)), np.zeros((1, 22, 22))])) == 0


def test_entropy_is_0_in_one_cell_and_1_in_different_cells():
    assert location_entropy(spots((10, 10), (10, 10), (10, 10))) == 0
    assert location_entropy(spots((0, 0), (10, 4), (6, 16), (20, 20))) == pytest.approx(1)
    assert location_entropy(spots((0, 0), (0, 0), (6, 6), (6, 6))) == pytest.approx(0.5)  # log 2 / log 4
    corner = spots((20, 20), side=22)
    assert location_entropy(np.concatenate([corner, corner[:, ::-1], np.zeros((1, 22, 22))])) == pytest.approx(1)
    assert location_entropy(np.ones((3, 22, 22))) == location_entropy(corner) == 0


def test_wide_maps_with_small_differences_have_their_centre_in_the_middle():
    rng = np.random.default_rng(0)
    assert location_entropy(rng.random((50, 40, 40)) * 0.1 + 0.5) == 0


@given(maps=arrays(float, (4, 6, 6), elements=st.floats(0, 1, width=16)), scale=st.floats(0.125, 1))
def test_both_numbers_are_in_their_range_whatever_the_scale(maps, scale):
    assert 0 <= mean_overlap(maps) <= 1
    assert 0 <= location_entropy(maps) <= 1 + 1e-12
    assert mean_overlap(scale * maps) == pytest.approx(mean_overlap(maps), abs=1e-6)
    normalised = min_max_normalise(maps)
    assert normalised.min() == 0
    assert normalised.max() in (0, 1)


def test_every_map_is_in_the_mosaic(tmp_path):
    maps = spots(*[(number, number) for number in range(10)])
    picture = map_grid(maps)
    assert picture.shape == (2 * 22 + 8, 5 * 22 + 4 * 8, 3)  # two full rows
    assert (picture[22:30] == 255).all()
    dark, light = picture[0, 21], picture[0, 0]
    assert light.sum() > dark.sum()
    assert (picture[30 + 5 : 30 + 7, 5:7] == light).all()  # the sixth map, whose spot is at (5, 5)
    assert map_grid(maps[:7]).shape == (3 * 22 + 2 * 8, 3 * 22 + 2 * 8, 3)
    draw_activations({"a": maps, r"b $\nothing$": maps[:3], "c": maps[:1]}, tmp_path / "three.png")
    drawn = np.asarray(Image.open(tmp_path / "three.png").convert("RGB"))
    assert (drawn == light).all(axis=2).any()


@pytest.mark.parametrize("names", [["K-Net"], ["K-Net with Saliency Prompt, " * 4], ["a" * 60, "b", "c d " * 30, "e"]])
def test_titles_are_whole(names, tmp_path):
    """Nothing touches the picture's edge, nor a title its neighbour."""
    draw_activations({name: spots((2, 2), (8, 8)) for name in names}, tmp_path / "a.png")
    inked = (np.asarray(Image.open(tmp_path / "a.png").convert("L")) < 255).astype(int)
    assert not any(edge.any() for edge in (inked[:10], inked[-10:], inked[:, :10], inked[:, -10:]))
    if len(names) > 1:  # of two columns
        middle = inked.shape[1] // 2
        assert not inked[:, middle - 5 : middle + 5].any()
