"""Run lengths are read as pycocotools reads them."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco_mask

from stage1_proposals.common.run_lengths import decode, read_changes


def compressed(counts: list[list[int]], size: tuple[int, int]) -> list[bytes]:
    objects = [{"size": list(size), "counts": each} for each in counts]
    return [rle["counts"] for rle in coco_mask.frPyObjects(objects, *size)] if counts else []


@st.composite
def run_lengths(draw: st.DrawFn) -> tuple[list[list[int]], tuple[int, int]]:
    """No to five masks of any size to 60 x 60: empty, full, of few runs or many, some of them without a pixel."""
    size = draw(st.integers(1, 60)), draw(st.integers(1, 60))
    pixels = size[0] * size[1]
    masks = []
    for _ in range(draw(st.integers(0, 5))):
        ends = sorted(draw(st.lists(st.integers(0, pixels), max_size=draw(st.sampled_from([1, 8, 60])))))
        masks.append(np.diff([0, *ends, pixels]).tolist())
    return masks, size


@settings(deadline=None, max_examples=150)
@given(masks=run_lengths())
def test_masks_decode_as_pycocotools_decodes_them(masks: tuple[list[list[int]], tuple[int, int]]) -> None:
    counts, size = masks
    rle = compressed(counts, size)
    found = decode(rle, size)
    assert found.dtype == np.uint8
    assert found.shape == (len(rle), *size)
    for mask, each in zip(found, rle, strict=True):
        assert np.array_equal(mask, coco_mask.decode({"size": list(size), "counts": each}))


@settings(deadline=None, max_examples=100)
@given(masks=run_lengths())
def test_changes_enter_and_leave_every_mask_in_turn(masks: tuple[list[list[int]], tuple[int, int]]) -> None:
    counts, size = masks
    mask, pixel = read_changes(compressed(counts, size), size)
    for number, each in enumerate(counts):
        ends = np.cumsum(each).tolist()
        expected = ends[:-1] if len(each) % 2 else ends
        assert pixel[mask == number].tolist() == expected
        assert len(expected) % 2 == 0
    assert (np.diff(mask) >= 0).all()


def test_large_masks_have_numbers_of_many_characters() -> None:
    size = (2000, 3000)
    masks = np.zeros((3, *size), np.uint8)
    masks[0, 5:1990, 7:2990] = 1
    masks[1] = 1
    masks[2, 1999, 2999] = 1
    rle = [each["counts"] for each in coco_mask.encode(np.asfortranarray(masks.transpose(1, 2, 0)))]
    assert np.array_equal(decode(rle, size), masks)


@pytest.mark.parametrize(
    "spoil", [lambda rle: rle[:-1], lambda rle: rle + b"1", lambda rle: b"", lambda rle: b"\xff\0z"]
)
def test_counts_that_do_not_add_up_are_refused(spoil) -> None:
    rle = compressed([[7, 40, 53]], (10, 10))
    with pytest.raises(ValueError, match="do not add up"):
        decode([*rle, spoil(rle[0])], (10, 10))
    with pytest.raises(ValueError, match="do not add up"):
        decode(rle, (10, 11))
