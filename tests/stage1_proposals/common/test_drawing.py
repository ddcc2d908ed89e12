"""Masks, seeds and names drawn on images, and contact sheets."""

import numpy as np
import pytest
from PIL import Image

from stage1_proposals.common.drawing import (
    CAPTION,
    GAP,
    OPACITY,
    caption,
    contact_sheet,
    draw_masks,
    draw_named,
    draw_proposals,
    legible,
    palette,
)


def test_colours_are_all_different() -> None:
    assert len(set(palette(40))) == 40


def test_an_image_keeps_its_shape_at_the_tiles_size() -> None:
    image = np.zeros((100, 200, 3), np.uint8)
    drawing = draw_proposals(image, np.zeros((0, 100, 200), np.uint8), np.zeros((0, 2)), tile=64)
    assert drawing.size == (64, 32)
    assert not np.asarray(drawing).any()


def test_masks_are_tinted_outlined_and_their_seeds_marked() -> None:
    masks = np.zeros((1, 64, 64), np.uint8)
    masks[0, 16:48, 16:48] = 1
    drawn = np.asarray(draw_proposals(np.full((64, 64, 3), 100, np.uint8), masks, np.array([(0.25, 0.75)]), tile=64))
    (colour,) = palette(1)
    assert drawn[4, 4].tolist() == [100, 100, 100]
    assert drawn[16, 30].tolist() == list(colour)
    inside = drawn[40, 20].astype(int)
    assert np.abs(inside - (100 + OPACITY * (np.array(colour) - 100))).max() <= 1
    assert drawn[16, 48].tolist() == list(colour)  # the seed, beside the mask


def test_where_masks_overlap_the_first_one_shows() -> None:
    masks = np.ones((2, 32, 32), np.uint8)
    drawn = np.asarray(draw_proposals(np.zeros((32, 32, 3), np.uint8), masks, np.full((2, 2), 0.5), tile=32))
    assert drawn[0, 16].tolist() == list(palette(2)[0])
    assert drawn[8, 8].tolist() == [round(OPACITY * value) for value in palette(2)[0]]


def test_masks_may_be_decoded_one_by_one_and_be_larger_than_the_image() -> None:
    masks = np.zeros((2, 320, 640), np.uint8)
    masks[0, 20:100, 40:400] = masks[1, 60:300, 300:620] = 1
    colours = palette(2)
    drawn = np.asarray(draw_masks(np.full((320, 640, 3), 100, np.uint8), masks, colours, tile=64))
    columns = (np.asfortranarray(mask) for mask in masks)
    small = np.full((32, 64, 3), 100, np.uint8)
    assert (np.asarray(draw_masks(small, columns, colours, tile=64)) == drawn).all()
    assert drawn[2, 20].tolist() == list(colours[0])
    assert drawn[29, 40].tolist() == list(colours[1])


def test_a_caption_stands_under_the_tile() -> None:
    drawn = np.asarray(caption(Image.new("RGB", (120, 40), "red"), "139:0  0.987"))
    assert drawn.shape == (40 + CAPTION, 120, 3)
    assert (drawn[:40] == [255, 0, 0]).all()
    assert (drawn[40:].max(axis=2) < 100).any()  # ink
    assert (drawn[40:, :8] == 255).all()  # on white, in the middle


def test_tiles_stand_in_rows_on_white() -> None:
    tiles = [Image.new("RGB", (20, 10), colour) for colour in ("red", "green", "blue")]
    sheet = np.asarray(contact_sheet(tiles, columns=2, tile=20))
    assert sheet.shape == (2 * (20 + GAP) + GAP, 2 * (20 + GAP) + GAP, 3)
    assert sheet[0, 0].tolist() == [255, 255, 255]
    centres = [GAP + 10, GAP + 10 + 20 + GAP]
    seen = [sheet[y, x].tolist() for y in centres for x in centres]
    assert seen == [[255, 0, 0], [0, 128, 0], [0, 0, 255], [255, 255, 255]]


def test_names_stand_above_their_masks_and_inside_the_picture() -> None:
    masks = np.zeros((3, 64, 64), np.uint8)
    masks[0, 40:60, 4:20] = 1
    masks[1, 0:20, 58:64] = 1  # whose name would leave the picture; and one without a pixel
    drawn = np.asarray(draw_named(np.full((64, 64, 3), 100, np.uint8), masks, ["text", "sign", "none"], tile=64))
    first, second, third = ((drawn == colour).all(axis=2) for colour in palette(3))
    assert first[28:40, 4:20].sum() > 60
    assert second[:14, 30:58].sum() > 60
    assert not third.any()
    assert (drawn[28:40].max(axis=2) < 90).any()  # letters


def test_a_mask_may_have_no_name_and_a_given_colour() -> None:
    masks = np.ones((1, 32, 32), np.uint8)
    drawn = np.asarray(draw_named(np.zeros((32, 32, 3), np.uint8), masks, [""], [(255, 255, 255)], tile=32))
    assert (drawn[0] == 255).all()
    assert (drawn[1:-1, 1:-1] == round(OPACITY * 255)).all()


@pytest.mark.parametrize(
    ("text", "drawn", "font"),
    [
        ("cat 1", "cat 1", "Aileron"),
        ("кот", "кот", "DejaVu Sans"),
        ("猫", "猫", "Noto Sans CJK JP"),
        ("ねこ and 고양이", "ねこ and 고양이", "Noto Sans CJK JP"),
        ("แมว", r"\u0e41\u0e21\u0e27", "Aileron"),
        ("猫 แ", r"猫 \u0e41", "Noto Sans CJK JP"),
    ],
)
def test_names_of_any_script_can_be_told_apart(text: str, drawn: str, font: str) -> None:
    found, used = legible(text, 11)
    assert (found, used.getname()[0]) == (drawn, font)


def test_chinese_names_are_drawn_as_they_are_written() -> None:
    mask = np.zeros((1, 80, 80), np.uint8)
    mask[0, 40:70, 10:70] = 1
    sheets = [np.asarray(draw_named(np.zeros((80, 80, 3), np.uint8), mask, [name], tile=80)) for name in ("猫", "犬")]
    assert (sheets[0] != sheets[1]).any()
