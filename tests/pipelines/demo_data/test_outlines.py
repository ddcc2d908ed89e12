import numpy as np
import pytest

from pipelines.demo_data import outlines, sources


@pytest.mark.parametrize(("name", "outline"), outlines.TRACED)
def test_traced_outlines_lie_in_their_photographs(name, outline):
    width, height = sources.image(name).size
    assert outline.min() >= 0
    assert (outline <= (width, height)).all()
    assert len(outline) > 8


def test_random_outlines_vary_and_are_some_two_units_across():
    rng = np.random.default_rng(0)
    shapes = [outlines.random_outline(rng) for _ in range(200)]
    extents = np.array([np.ptp(shape, axis=0).max() for shape in shapes])
    assert all(np.isfinite(shape).all() and shape.shape[1] == 2 and len(shape) >= 3 for shape in shapes)
    assert extents.min() > 1
    assert extents.max() < 4
    assert {len(shape) for shape in shapes} >= {72, 48, 4}  # blobs, bands, polygons
