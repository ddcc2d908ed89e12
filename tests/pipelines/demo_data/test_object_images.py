import numpy as np
import pytest
from PIL import Image

from pipelines.demo_data import object_images, photographs


def test_cut_out_keeps_the_inside_and_only_that():
    square = np.array([(100, 50), (200, 50), (200, 150), (100, 150)], dtype=float)
    thing = np.asarray(object_images.cut_out("coffee.png", square, longest_side=105, angle=0))
    source = np.asarray(photographs.photograph("coffee.png"))
    alpha = thing[..., 3]
    assert alpha[52, 52] == 255
    assert alpha[0, 0] == 0
    assert abs((alpha / 255).sum() - 100 * 100) < 300
    assert np.abs(thing[20:80, 20:80, :3].astype(int) - source[68:128, 118:178]).max() <= 1


def test_cut_out_turns():
    bar = np.array([(10, 10), (110, 10), (110, 30), (10, 30)], dtype=float)
    thing = object_images.cut_out("brick.png", bar, longest_side=100, angle=90)
    assert thing.height > 3 * thing.width


def test_things_are_as_large_as_asked_unless_they_would_blur():
    rng = np.random.default_rng(0)
    smallest = min(np.ptp(outline, axis=0).max() for _, outline in object_images.TRACED)
    for _ in range(40):
        thing = object_images.random_object(180, rng)
        width, height = np.ptp(np.argwhere(np.asarray(thing)[..., 3] > 127), axis=0)
        assert max(width, height) >= 0.6 * min(180, smallest * photographs.MAX_ENLARGEMENT)
        assert max(width, height) <= 180 * 1.5


def test_paste_changes_the_canvas_where_the_thing_lies():
    canvas = Image.new("RGB", (60, 60), "white")
    thing = Image.new("RGBA", (10, 10), (200, 0, 0, 255))
    object_images.paste(canvas, thing, (-5, 20))
    pixels = np.asarray(canvas)
    assert (pixels[21:29, 0:4] == (200, 0, 0)).all()
    assert (pixels[:, 40:] == 255).all()


def test_images_follow_their_seed_and_differ():
    first, again, other = (np.asarray(object_images.draw_image(np.random.default_rng(seed))[0]) for seed in (5, 5, 6))
    assert np.array_equal(first, again)
    assert first.shape != other.shape or not np.array_equal(first, other)
    for pixels in (first, other):
        assert 256 <= min(pixels.shape[:2]) <= max(pixels.shape[:2]) <= 384
        assert pixels.std() > 10


def test_masks_are_what_an_image_shows_of_its_things(monkeypatch):
    def red(longest_side, rng):
        return Image.new("RGBA", (90, 60), (250, 0, 0, 255))

    monkeypatch.setattr(object_images, "random_object", red)
    for seed in range(8):
        image, masks = object_images.draw_image(np.random.default_rng(seed))
        pixels = np.asarray(image).astype(int)
        seen = (pixels[..., 0] > 30) & (pixels[..., 1:].max(axis=2) < 3)  # red, also in a shadow
        labelled = np.any([*masks, np.zeros_like(seen)], axis=0)
        assert not (labelled & ~seen).any()
        assert all(mask.sum() >= object_images.MIN_VISIBLE_PIXELS for mask in masks)
        assert (seen & ~labelled).sum() < object_images.MAX_OBJECTS * object_images.MIN_VISIBLE_PIXELS


@pytest.mark.parametrize(("name", "outline"), object_images.TRACED)
def test_traced_outlines_lie_in_their_photographs(name, outline):
    width, height = photographs.photograph(name).size
    assert outline.min() >= 0
    assert (outline <= (width, height)).all()
    assert len(outline) > 8


def test_random_outlines_vary_and_are_some_two_units_across():
    rng = np.random.default_rng(0)
    shapes = [object_images.random_outline(rng) for _ in range(200)]
    extents = np.array([np.ptp(shape, axis=0).max() for shape in shapes])
    assert all(np.isfinite(shape).all() and shape.shape[1] == 2 and len(shape) >= 3 for shape in shapes)
    assert extents.min() > 1
    assert extents.max() < 4
    assert {len(shape) for shape in shapes} >= {72, 48, 4}  # blobs, bands, polygons
