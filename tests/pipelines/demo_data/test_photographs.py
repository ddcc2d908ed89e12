import numpy as np
import pytest

from pipelines.demo_data import photographs


@pytest.mark.parametrize("name", sorted({*photographs.SCENES, *photographs.TEXTURES, *photographs.TEXT_FREE}))
def test_every_photograph_is_on_disk_and_large_enough(name):
    image = photographs.photograph(name)
    assert image.mode == "RGB"
    zoom = max(photographs.LONGEST_SIDE / image.width, photographs.LONGEST_SIDE / image.height)
    assert zoom <= photographs.MAX_ENLARGEMENT


@pytest.mark.parametrize("name", ["chelsea.png", "coins.png", "retina.jpg"])
def test_crops_have_the_size_asked_for_and_follow_the_seed(name):
    first, again, other = (
        np.asarray(photographs.random_crop(name, (384, 257), np.random.default_rng(seed))) for seed in (3, 3, 4)
    )
    assert first.shape == (257, 384, 3)
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_relight_brightens_or_darkens_without_moving_anything():
    image = photographs.photograph("coffee.png")
    relit = photographs.relight(image, np.random.default_rng(0), tint=0.1)
    before, after = (np.asarray(image.convert("L"), dtype=float).ravel() for image in (image, relit))
    assert not np.array_equal(before, after)
    assert np.corrcoef(before, after)[0, 1] > 0.95
