import numpy as np
from PIL import Image

from pipelines.demo_data import images, outlines, sources


def test_cut_out_keeps_the_inside_and_only_that():
    square = np.array([(100, 50), (200, 50), (200, 150), (100, 150)], dtype=float)
    thing = np.asarray(images.cut_out("coffee.png", square, longest_side=105, angle=0))
    source = np.asarray(sources.image("coffee.png"))
    alpha = thing[..., 3]
    assert alpha[52, 52] == 255
    assert alpha[0, 0] == 0
    assert abs((alpha / 255).sum() - 100 * 100) < 300
    assert np.abs(thing[20:80, 20:80, :3].astype(int) - source[68:128, 118:178]).max() <= 1


def test_cut_out_turns():
    bar = np.array([(10, 10), (110, 10), (110, 30), (10, 30)], dtype=float)
    thing = images.cut_out("brick.png", bar, longest_side=100, angle=90)
    assert thing.height > 3 * thing.width


def test_things_are_as_large_as_asked_unless_they_would_blur():
    rng = np.random.default_rng(0)
    smallest = min(np.ptp(outline, axis=0).max() for _, outline in outlines.TRACED)
    for _ in range(40):
        thing = images.random_thing(180, rng)
        width, height = np.ptp(np.argwhere(np.asarray(thing)[..., 3] > 127), axis=0)
        assert max(width, height) >= 0.6 * min(180, smallest * sources.STRONGEST_ENLARGEMENT)
        assert max(width, height) <= 180 * 1.5


def test_paste_changes_the_canvas_where_the_thing_lies():
    canvas = Image.new("RGB", (60, 60), "white")
    thing = Image.new("RGBA", (10, 10), (200, 0, 0, 255))
    images.paste(canvas, thing, (-5, 20))
    pixels = np.asarray(canvas)
    assert (pixels[21:29, 0:4] == (200, 0, 0)).all()
    assert (pixels[:, 40:] == 255).all()


def test_images_follow_their_seed_and_differ():
    first, again, other = (np.asarray(images.draw_image(np.random.default_rng(seed))[0]) for seed in (5, 5, 6))
    assert np.array_equal(first, again)
    assert first.shape != other.shape or not np.array_equal(first, other)
    for pixels in (first, other):
        assert 256 <= min(pixels.shape[:2]) <= max(pixels.shape[:2]) <= 384
        assert pixels.std() > 10


def test_masks_are_what_an_image_shows_of_its_things(monkeypatch):
    def red(longest_side, rng):
        return Image.new("RGBA", (90, 60), (250, 0, 0, 255))

    monkeypatch.setattr(images, "random_thing", red)
    for seed in range(8):
        image, masks = images.draw_image(np.random.default_rng(seed))
        pixels = np.asarray(image).astype(int)
        seen = (pixels[..., 0] > 30) & (pixels[..., 1:].max(axis=2) < 3)  # red, also in a shadow
        labelled = np.any([*masks, np.zeros_like(seen)], axis=0)
        assert not (labelled & ~seen).any()
        assert all(mask.sum() >= images.LEAST_VISIBLE for mask in masks)
        assert (seen & ~labelled).sum() < images.MOST_THINGS * images.LEAST_VISIBLE
