"""A contact sheet: images with their masks drawn in colours and their seeds marked."""

import colorsys
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from stage1_proposals.shards import ImageRecord

TILE = 256
GAP = 6
CAPTION = 18
NAME = 11
OPACITY = 0.4
GOLDEN_RATIO = 0.618034

Colour = tuple[int, int, int]


def palette(count: int) -> list[Colour]:
    """Colours that stay apart however many there are: hues a golden ratio apart."""
    hues = [(index * GOLDEN_RATIO) % 1 for index in range(count)]
    return [tuple(round(255 * c) for c in colorsys.hsv_to_rgb(hue, 0.85, 1.0)) for hue in hues]  # type: ignore[misc]


def draw_masks(
    pixels: NDArray[np.uint8], masks: NDArray[np.uint8], colours: Sequence[Colour], tile: int = TILE
) -> Image.Image:
    """One image, its longer side `tile` pixels, with outlined masks.

    Where masks overlap, the best one alone is seen: tints that mix cannot be told apart.

    Args:
        image: uint8 (H, W, 3) RGB.
        masks: 0 or 1, (N, H, W), best first.
        colours: one for each.
    """
    height, width = pixels.shape[:2]
    scale = tile / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    plain = np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BILINEAR)).astype(np.float32)
    canvas = plain.copy()
    for mask, colour in reversed(list(zip(masks, colours, strict=True))):
        small = np.asarray(Image.fromarray(mask * 255).resize(size, Image.Resampling.BILINEAR)) > 127
        padded = np.pad(small, 1)
        inner = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
        canvas[small] = plain[small] + OPACITY * (np.array(colour) - plain[small])
        canvas[small & ~inner] = colour
    return Image.fromarray(canvas.round().astype(np.uint8))


def draw_proposals(pixels: NDArray[np.uint8], record: ImageRecord, tile: int = TILE) -> Image.Image:
    """`draw_masks` of an image of the record's size, best proposal first, with seeds as dots."""
    colours = palette(len(record))
    image = draw_masks(pixels, record.masks(), colours, tile)
    draw = ImageDraw.Draw(image)
    for (y, x), colour in zip(record.seed, colours, strict=True):
        cx, cy = x * image.width, y * image.height
        draw.ellipse((cx - 4, cy - 4, cx + 4, cy + 4), fill=colour, outline="black")
    return image


def draw_named(
    pixels: NDArray[np.uint8], masks: NDArray[np.uint8], names: Sequence[str], tile: int = TILE
) -> Image.Image:
    """`draw_masks` with a name at each mask's upper left corner, in its colour, moved into the picture."""
    colours = palette(len(masks))
    image = draw_masks(pixels, masks, colours, tile)
    draw = ImageDraw.Draw(image)
    for mask, name, colour in reversed(list(zip(masks, names, colours, strict=True))):
        rows, columns = mask.nonzero()
        if not len(rows):
            continue
        left, top, right, bottom = draw.textbbox((0, 0), name, font_size=NAME)
        x = min(columns.min() * image.width / mask.shape[1], image.width - right)
        y = max(0, rows.min() * image.height / mask.shape[0] - bottom)
        draw.rectangle((x + left - 1, y + top - 1, x + right + 1, y + bottom + 1), fill=colour)
        draw.text((x, y), name, "black", font_size=NAME)
    return image


def caption(tile: Image.Image, text: str) -> Image.Image:
    """The tile with a line of text on white under it."""
    captioned = Image.new("RGB", (tile.width, tile.height + CAPTION), "white")
    captioned.paste(tile, (0, 0))
    ImageDraw.Draw(captioned).text(
        (tile.width / 2, tile.height + CAPTION / 2), text, "black", anchor="mm", font_size=13
    )
    return captioned


def contact_sheet(tiles: Sequence[Image.Image], columns: int = 5, tile: int = TILE) -> Image.Image:
    """Tiles in rows on white, each centred in its square."""
    columns = max(1, min(columns, len(tiles)))
    rows = -(-len(tiles) // columns)
    sheet = Image.new("RGB", (columns * (tile + GAP) + GAP, rows * (tile + GAP) + GAP), "white")
    for index, image in enumerate(tiles):
        row, column = divmod(index, columns)
        left = GAP + column * (tile + GAP) + (tile - image.width) // 2
        top = GAP + row * (tile + GAP) + (tile - image.height) // 2
        sheet.paste(image, (left, top))
    return sheet
