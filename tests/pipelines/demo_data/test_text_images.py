import numpy as np
from PIL import Image, ImageDraw

from pipelines.demo_data import text_images


def rasterise(polygon, size):
    mask = Image.new("1", size)
    ImageDraw.Draw(mask).polygon([(x, y) for x, y in polygon.tolist()], fill=1)
    return np.asarray(mask)


def draw(index, **kwargs):
    return text_images.draw_text_image(np.random.default_rng((0, index)), **kwargs)


def test_lines_lie_inside_the_image_and_apart_from_each_other():
    counts = []
    for index in range(8):
        image, lines = draw(index)
        counts.append(len(lines))
        covered = np.zeros((image.height, image.width), dtype=int)
        for line in lines:
            assert line.polygon.shape == (14, 2)
            assert line.polygon.min() >= 0
            assert (line.polygon < image.size).all()
            assert len(line.glyphs) == len(line.text.replace(" ", ""))
            mask = rasterise(line.polygon, image.size)
            assert all(mask[y, x] for x, y in line.glyphs.tolist())
            covered += mask
        assert covered.max() == 1
    assert min(counts) >= 1
    assert max(counts) <= text_images.MOST_LINES
    assert len(set(counts)) > 2


def test_text_stands_out():
    for index in range(6):
        image, lines = draw(index)
        grey = np.asarray(image.convert("L"), dtype=float)
        for line in lines:
            inside = grey[rasterise(line.polygon, image.size)]
            assert np.percentile(inside, 98) - np.percentile(inside, 2) > 60


def test_the_seed_decides_everything():
    (first, lines), (again, lines_again), (other, _) = draw(0), draw(0), draw(1)
    assert first.tobytes() == again.tobytes() != other.tobytes()
    assert [line.text for line in lines] == [line.text for line in lines_again]
    assert all(np.array_equal(a.polygon, b.polygon) for a, b in zip(lines, lines_again, strict=True))


def test_illegible_lines_are_marked_and_never_the_only_ones():
    for index in range(6):
        _, lines = draw(index, illegible_share=1.0)
        assert lines[0].text != text_images.ILLEGIBLE
        assert all(line.text == text_images.ILLEGIBLE for line in lines[1:])
