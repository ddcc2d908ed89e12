"""Random shapes: the same for an image whatever the run, within their bounds."""

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stage1_proposals.common.masks import mask_areas, mask_boxes, rle_objects
from stage1_proposals.generators.base import Batch, ImageInfo, Proposals
from stage1_proposals.generators.random_shapes import RandomGenerator

SIZE = (120, 200)


def propose(generator: RandomGenerator, image_id: int = 1, size: tuple[int, int] = SIZE) -> Proposals:
    (proposals,) = generator(Batch(torch.ones(1, 4, 3, 5), [ImageInfo(image_id, "a.jpg", size)]))
    return proposals


def test_an_image_has_the_same_shapes_in_every_batch() -> None:
    generator = RandomGenerator()
    images = [ImageInfo(image_id, "", SIZE) for image_id in (5, 6, 2**62)]
    for image, together in zip(images, generator(Batch(torch.ones(3, 4, 3, 5), images)), strict=True):
        assert together.rle == propose(generator, image.image_id).rle


def test_images_and_seeds_have_shapes_of_their_own() -> None:
    assert propose(RandomGenerator(), 1).rle != propose(RandomGenerator(), 2).rle
    assert propose(RandomGenerator(seed=1)).rle != propose(RandomGenerator(seed=2)).rle


@settings(deadline=None, max_examples=30)
@given(image_id=st.integers(-(2**63), 2**63 - 1), low=st.floats(0.1, 0.5), span=st.floats(0, 0.5))
def test_sides_lie_within_their_bounds(image_id: int, low: float, span: float) -> None:
    proposals = propose(RandomGenerator(min_side=low, max_side=low + span), image_id)
    x1, y1, x2, y2 = mask_boxes(rle_objects(proposals.rle, SIZE)).T
    for side, pixels in ((x2 - x1, SIZE[1]), (y2 - y1, SIZE[0])):
        assert (side >= low * pixels - 1.5).all()
        assert (side <= (low + span) * pixels + 1.5).all()
    assert len(proposals) == 20


def test_rectangles_fill_their_boxes_and_ellipses_a_quarter_of_pi() -> None:
    for shape, share in (("rectangle", 1.0), ("ellipse", np.pi / 4)):
        proposals = propose(RandomGenerator(shapes=(shape,), min_side=0.4), size=(800, 800))
        x1, y1, x2, y2 = mask_boxes(rle_objects(proposals.rle, (800, 800))).T
        assert np.allclose(
            mask_areas(rle_objects(proposals.rle, (800, 800))) / ((x2 - x1) * (y2 - y1)), share, atol=0.02
        )


def test_an_image_of_one_pixel_has_no_empty_masks() -> None:
    proposals = propose(RandomGenerator(), size=(1, 1))
    assert (mask_areas(rle_objects(proposals.rle, (1, 1))) == 1).all()
