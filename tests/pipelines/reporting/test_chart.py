import re
import xml.etree.ElementTree as ET

from hypothesis import given, settings
from hypothesis import strategies as st
from pipelines.reporting.chart import BOTTOM, HEIGHT, LEFT, POINTS, RIGHT, TOP, WIDTH, Series, line_chart, thin, ticks

NUMBER = st.floats(-1e30, 1e30)
POINT = st.tuples(NUMBER, NUMBER, NUMBER, NUMBER)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.builds(Series, st.text(), st.lists(POINT, min_size=1, max_size=4)), min_size=1, max_size=3))
def test_any_finite_lines_are_drawn_inside_the_axes(series):
    # XML has no place for control characters; HTML takes them.
    text = re.sub("[\x00-\x1f\x7f\ufffe\uffff]", "", line_chart(series, "x", "<y>"))
    figure = ET.fromstring(text)
    for line in figure.iterfind(".//path[@class='line']"):
        for x, y in re.findall(r"(-?[\d.]+) (-?[\d.]+)", line.attrib["d"]):
            assert LEFT - 1 <= float(x) <= WIDTH - RIGHT + 1
            assert TOP - 1 <= float(y) <= HEIGHT - BOTTOM + 1
    assert len(figure.findall(".//path[@class='line']")) == len(series)


def test_a_line_goes_through_its_values():
    chart = ET.fromstring(line_chart([Series("a", [(0, 0, 0, 0), (10, 20, 10, 20)])], "x", "y"))
    (line,) = chart.iterfind(".//path[@class='line']")
    assert line.attrib["d"] == f"M{LEFT:.1f} {HEIGHT - BOTTOM:.1f}L{WIDTH - RIGHT:.1f} {TOP:.1f}"
    assert len(chart.findall(".//path[@class='band']")) == 1
    assert [title.text for title in chart.iterfind(".//circle/title")] == ["a: 0 at 0", "a: 20 at 10"]


@given(st.floats(-1e30, 1e30), st.floats(1e-9, 1e30))
def test_ticks_are_few_round_and_around(low, width):
    high = low + width
    found = ticks(low, high)
    assert found == sorted(found)
    assert len(found) <= 8
    slack = 1e-6 * max(abs(low), abs(high), 1e-6)
    assert found[0] <= low + slack
    if len(found) > 1:
        assert found[-1] >= high - slack


def test_ticks_are_those_a_person_would_choose():
    assert ticks(0, 12.3) == [0, 5, 10, 15]
    assert ticks(0, 0.07) == [0, 0.02, 0.04, 0.06, 0.08]
    assert ticks(3, 3) == [3]
    assert ticks(1, 2, least=1) == [1, 2]


def test_long_lines_keep_their_ends():
    points = [(float(x), 0.0, 0.0, 0.0) for x in range(1000)]
    thinned = thin(points)
    assert len(thinned) == POINTS
    assert (thinned[0], thinned[-1]) == (points[0], points[-1])
    assert thin(points[:5]) == points[:5]
