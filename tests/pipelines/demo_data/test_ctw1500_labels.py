"""What is written in CTW1500's formats comes back from the converter that reads the real data set."""

import xml.etree.ElementTree as ElementTree

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from pipelines.demo_data.ctw1500_labels import text_label, xml_label
from pipelines.demo_data.text_images import Line
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
