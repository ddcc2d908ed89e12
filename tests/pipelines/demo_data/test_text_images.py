"""Images of text, and labels in CTW1500's formats, which the converter of the real data set reads."""

import xml.etree.ElementTree as ElementTree

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image, ImageDraw

from pipelines.demo_data import text_images
from pipelines.demo_data.text_images import Line, text_label, xml_label
from stage2_training.labels.ctw1500 import read_test_label, read_train_label

polygons = arrays(np.int64, (14, 2), elements=st.integers(-50, 2000))
# Whatever a person may type; XML has no control characters.
texts = st.text(st.characters(exclude_categories=("C", "Z")) | st.sampled_from(" ,&<>\"'#"), max_size=12).map(str.strip)
lines = st.lists(
    st.builds(Line, polygons, arrays(np.int64, st.tuples(st.integers(0, 3), st.just(2))), texts), max_size=4
)


def assert_same(read, written):
    assert [line.text for line in read] == [line.text for line in written]
    assert all(np.array_equal(a.polygon, b.polygon) for a, b in zip(read, written, strict=True))


@settings(deadline=None, max_examples=40)
@given(lines=lines)
def test_train_labels_come_back(tmp_path_factory, lines):
    path = tmp_path_factory.mktemp("labels") / "0001.xml"
    path.write_text(xml_label("0001.jpg", lines), encoding="utf-8")
    assert_same(read_train_label(path), lines)


@settings(deadline=None, max_examples=40)
@given(lines=lines)
def test_test_labels_come_back(tmp_path_factory, lines):
    path = tmp_path_factory.mktemp("labels") / "0001001.txt"
    path.write_text(text_label(lines), encoding="utf-8")
    assert_same(read_test_label(path), lines)


def test_the_xml_has_the_published_structure():
    polygon = np.array([(10 + 5 * i, 20) for i in range(7)] + [(40 - 5 * i, 32) for i in range(7)])
    root = ElementTree.fromstring(xml_label("0200.jpg", [Line(polygon, np.array([(12, 26), (30, 26)]), "A&B")]))
    (image,) = root
    (box,) = image
    assert (root.tag, image.attrib) == ("Annotations", {"file": "0200.jpg"})
    assert box.attrib == {"height": "12", "width": "30", "left": "10", "top": "20"}
    assert [child.tag for child in box] == ["label", "segs", "pts", "pts"]
    assert box[0].text == "A&B"
    assert box[2].attrib == {"x": "12", "y": "26"}


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
    assert max(counts) <= text_images.MAX_LINES
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
