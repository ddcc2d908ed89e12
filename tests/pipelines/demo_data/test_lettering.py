import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw
from scipy.ndimage import gaussian_filter, map_coordinates

from pipelines.demo_data import lettering

BASELINES = [
    lettering.Baseline((150, 130), 0.0, np.inf),
    lettering.Baseline((150, 130), -0.5, np.inf),
    lettering.Baseline((150, 130), 0.1, 110.0),
    lettering.Baseline((150, 130), 0.2, -90.0),
]


@settings(deadline=None, max_examples=50)
@given(
    u=st.floats(-100, 100),
    v=st.floats(-20, 20),
    angle=st.floats(-1, 1),
    radius=st.one_of(st.just(np.inf), st.floats(60, 1e5), st.floats(-1e5, -60)),
)
def test_to_strip_undoes_to_image(u, v, angle, radius):
    baseline = lettering.Baseline((123.0, -45.0), angle, radius)
    back = baseline.to_strip(baseline.to_image(np.array([u, v])))
    assert back == pytest.approx([u, v], abs=1e-5)


def test_a_positive_radius_arches_up():
    baseline = lettering.Baseline((0, 0), 0.0, 100.0)
    left, middle, right = baseline.to_image(np.array([[-50.0, 0.0], [0.0, 0.0], [50.0, 0.0]]))
    assert middle == pytest.approx([0, 0])
    assert left[1] == pytest.approx(right[1])
    assert left[1] > 10
    assert left[0] < 0 < right[0]
    arc = 100 * np.array([np.sin(0.5), 1 - np.cos(0.5)])
    assert right == pytest.approx(arc)


@pytest.mark.parametrize("text", ["HOTEL", "Quay & go 12"])
@pytest.mark.parametrize("baseline", BASELINES)
def test_the_outline_fits_the_ink_tightly(text, baseline):
    strip = lettering.render_strip(text, "DejaVuSans-Bold.ttf", 28)
    pixels = np.zeros((260, 300, 3), dtype=np.float32)
    lettering.paint_line(pixels, strip, baseline, lettering.Paint(np.array([255.0, 255.0, 255.0])))
    ink = pixels[..., 0] / 255
    polygon = lettering.outline(strip, baseline)
    mask = Image.new("1", (300, 260))
    ImageDraw.Draw(mask).polygon([(x, y) for x, y in polygon.tolist()], fill=1)
    assert ink[np.asarray(mask)].sum() / ink.sum() > 0.98

    y, x = np.nonzero(ink > 0.5)
    reach = baseline.to_strip(np.stack([x, y], axis=1).astype(float))
    half = np.array(strip.size) / 2
    assert reach.max(axis=0) == pytest.approx(half, abs=1.5)
    assert reach.min(axis=0) == pytest.approx(-half, abs=1.5)


@pytest.mark.parametrize(
    "paint",
    [
        lettering.Paint(np.array([255.0, 200, 150]), border=np.array([9.0, 9, 9]), plate=np.array([90.0, 0, 0])),
        lettering.Paint(np.array([255.0, 200, 150]), blur=5.0),
    ],
)
@pytest.mark.parametrize("baseline", BASELINES)
def test_all_pixels_that_a_line_changes_are_painted(baseline, paint):
    """The same, to the bit, as painting with every pixel of the image looked at."""
    strip = lettering.render_strip("Quay & go 12", "DejaVuSans-Bold.ttf", 28)
    pixels = np.full((260, 300, 3), 40, dtype=np.float32)
    lettering.paint_line(pixels, strip, baseline, paint)
    y, x = np.mgrid[:260, :300]
    u, v = np.moveaxis(baseline.to_strip(np.stack([x, y], axis=-1).astype(float)), -1, 0)
    middle = [(side - 1) / 2 for side in strip.ink.shape]
    whole = np.full_like(pixels, 40)
    if paint.plate is not None:
        width, height = strip.size
        inside = np.minimum(width / 2 - abs(u), height / 2 - abs(v)) + lettering.PLATE_MARGIN + 0.5
        whole += np.clip(inside, 0, 1)[..., None] * (paint.plate - whole)
    for colour, coverage in ((paint.border, strip.outlined), (paint.ink, strip.ink)):
        if colour is not None:
            alpha = map_coordinates(coverage, [2 * v + middle[0], 2 * u + middle[1]], order=1)
            alpha = gaussian_filter(alpha, paint.blur) if paint.blur else alpha
            whole += alpha[..., None] * (colour - whole)
    assert np.array_equal(pixels, whole)


def test_the_outline_runs_along_the_top_then_back_along_the_bottom():
    strip = lettering.render_strip("CINEMA", "DejaVuSerif.ttf", 30)
    polygon = lettering.outline(strip, lettering.Baseline((100, 100), 0.0, np.inf))
    top, bottom = polygon[:7], polygon[7:]
    assert (np.diff(top[:, 0]) > 0).all()
    assert (np.diff(bottom[:, 0]) < 0).all()
    assert top[:, 1].max() < 100 < bottom[:, 1].min()


def test_glyph_centres_are_those_of_the_inked_characters():
    strip = lettering.render_strip("A B", "DejaVuSansMono-Bold.ttf", 30)
    assert len(strip.glyph_centres) == 2
    assert strip.glyph_centres == pytest.approx([-18, 18], abs=1.5)  # monospaced: 0.6 em apart, two of them


def test_plate_and_border_lie_under_the_ink():
    strip = lettering.render_strip("III", "DejaVuSans-Bold.ttf", 40)
    paint = lettering.Paint(np.full(3, 255.0), border=np.full(3, 100.0), plate=np.array([0.0, 0.0, 200.0]))
    pixels = np.zeros((100, 100, 3), dtype=np.float32)
    lettering.paint_line(pixels, strip, lettering.Baseline((50, 50), 0.0, np.inf), paint)
    assert pixels[50, 50] == pytest.approx([255, 255, 255], abs=1)
    left, top = 50 - np.array(strip.size) / 2
    assert pixels[50, round(left - 1.5)] == pytest.approx([100, 100, 100], abs=1)
    assert pixels[round(top - 3), round(left - 3)] == pytest.approx([0, 0, 200], abs=1)
    assert pixels[round(top - lettering.PLATE_MARGIN - 2), 50].max() == 0


def test_blank_text_is_refused():
    with pytest.raises(ValueError, match="no ink"):
        lettering.render_strip("  ", "DejaVuSans.ttf", 20)
