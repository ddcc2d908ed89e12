"""Masks, seeds and names drawn on images, and contact sheets of such images."""

import colorsys
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

# All but the opacity in pixels of the drawing.
TILE = 256
GAP = 6
CAPTION = 18
NAME_FONT = 11
CAPTION_FONT = 13
SEED_RADIUS = 4
OPACITY = 0.4
GOLDEN_RATIO = 0.618034

# The characters of no script lie here; a font draws its sign for missing ones.
NONCHARACTER = "\uffff"

Colour = tuple[int, int, int]
Font = ImageFont.FreeTypeFont


def palette(count: int) -> list[Colour]:
    """Colours that differ however many there are: hues a golden ratio apart."""
    hues = [(index * GOLDEN_RATIO) % 1 for index in range(count)]
    return [tuple(round(255 * c) for c in colorsys.hsv_to_rgb(hue, 0.85, 1.0)) for hue in hues]  # type: ignore[misc]


def draw_masks(
    pixels: NDArray[np.uint8], masks: Iterable[NDArray[np.uint8]], colours: Sequence[Colour], tile: int = TILE
) -> Image.Image:
    """Draw outlined masks on an image.

    Where masks overlap, only the first one shows: mixed tints cannot be told apart.

    Args:
        pixels: uint8 (H, W, 3), RGB.
        masks: N of them, best first, 0 or 1, of the image's shape at any size. They are taken one by one, so an
            iterator that decodes them holds one at a time.
        colours: N of them.
        tile: length of the drawing's longer side.
    """
    return _draw_masks(pixels, masks, colours, tile)[0]


def _draw_masks(
    pixels: NDArray[np.uint8], masks: Iterable[NDArray[np.uint8]], colours: Sequence[Colour], tile: int
) -> tuple[Image.Image, list[tuple[int, int] | None]]:
    """As `draw_masks`; also the upper left corner (x, y) of each mask in the drawing, None where it has no pixel."""
    height, width = pixels.shape[:2]
    scale = tile / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    plain = np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BILINEAR)).astype(np.float32)
    canvas = plain.copy()
    covered = np.zeros(plain.shape[:2], bool)
    corners: list[tuple[int, int] | None] = []
    for mask, colour in zip(masks, colours, strict=True):
        small = _resized(mask, size)
        rows, columns = np.flatnonzero(small.any(axis=1)), np.flatnonzero(small.any(axis=0))
        if not len(rows):
            corners.append(None)
            continue
        top, left = int(rows[0]), int(columns[0])
        corners.append((left, top))
        box = np.s_[top : rows[-1] + 1, left : columns[-1] + 1]  # most masks are small
        part = small[box]
        padded = np.pad(part, 1)
        inner = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
        shown = part & ~covered[box]
        canvas[box][shown] = plain[box][shown] + OPACITY * (np.array(colour) - plain[box][shown])
        canvas[box][shown & ~inner] = colour
        covered[box] |= part
    return Image.fromarray(canvas.round().astype(np.uint8)), corners


def _resized(mask: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.bool_]:
    """A mask at a size (width, height)."""
    # pycocotools decodes masks column by column. Pillow takes rows, and would copy them in an order that is slow.
    by_columns = mask.flags.f_contiguous
    image = Image.fromarray((mask.T if by_columns else mask) * 255)
    image = image.resize(size[::-1] if by_columns else size, Image.Resampling.BILINEAR, reducing_gap=2)
    resized = np.asarray(image) > 127
    return resized.T if by_columns else resized


def draw_proposals(
    pixels: NDArray[np.uint8], masks: NDArray[np.uint8], seeds: NDArray[np.floating], tile: int = TILE
) -> Image.Image:
    """`draw_masks` in colours of their own, with a dot at each mask's seed.

    Args:
        masks: 0 or 1, (N, H, W), best first.
        seeds: (N, 2), y and x in [0, 1] of height and width.
    """
    colours = palette(len(masks))
    drawing = draw_masks(pixels, masks, colours, tile)
    draw = ImageDraw.Draw(drawing)
    for (y, x), colour in zip(seeds, colours, strict=True):
        draw.circle((x * drawing.width, y * drawing.height), SEED_RADIUS, fill=colour, outline="black")
    return drawing


def draw_named(
    pixels: NDArray[np.uint8],
    masks: Iterable[NDArray[np.uint8]],
    names: Sequence[str],
    colours: Sequence[Colour] | None = None,
    tile: int = TILE,
) -> Image.Image:
    """`draw_masks` with a name above each mask's upper left corner, on its colour, moved into the drawing.

    Args:
        masks: as `draw_masks`.
        names: N of them; none is written where it is empty.
        colours: N of them; default: colours that differ.
    """
    colours = palette(len(names)) if colours is None else colours
    drawing, corners = _draw_masks(pixels, masks, colours, tile)
    draw = ImageDraw.Draw(drawing)
    for corner, name, colour in reversed(list(zip(corners, names, colours, strict=True))):
        if not name or corner is None:
            continue
        name, font = legible(name, NAME_FONT)
        left, top, right, bottom = draw.textbbox((0, 0), name, font=font)
        x = min(corner[0], drawing.width - right)
        y = max(0, corner[1] - bottom)
        draw.rectangle((x + left - 1, y + top - 1, x + right + 1, y + bottom + 1), fill=colour)
        draw.text((x, y), name, "black", font=font)
    return drawing


def legible(text: str, size: int) -> tuple[str, Font]:
    """A text as it can be drawn, and the font to draw it in: the first of `_fonts` that has all of its characters.

    Characters that no font has become escapes, as `\\u0e41`, since empty boxes cannot be told apart.

    Args:
        size: of the font in pixels.
    """
    lacking: dict[str, Font] = {}
    for font in _fonts(size):
        missing = {character for character in text if not _has(font, character)}
        if not missing:
            return text, font
        lacking.setdefault("".join(sorted(missing)), font)
    characters, font = min(lacking.items(), key=lambda item: len(item[0]))
    return "".join(ascii(one)[1:-1] if one in characters else one for one in text), font


def _fonts(size: int) -> Iterator[Font]:
    """Pillow's own font; one of European and Semitic scripts; one of Chinese, Japanese and Korean."""
    yield _font(None, size)
    import matplotlib  # takes half a second, and few names need it

    yield _font(Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf"), size)
    from noto_cjk_sans_otc import FONT_PATH

    yield _font(Path(str(FONT_PATH)), size)


@cache
def _font(path: Path | None, size: int) -> Font:
    font = ImageFont.load_default(size) if path is None else ImageFont.truetype(path, size)
    assert isinstance(font, Font)  # Pillow is built with FreeType
    return font


@cache
def _has(font: Font, character: str) -> bool:
    """Whether a font has a character: it draws another picture than for a missing one, or none for a blank."""
    return character.isspace() or bytes(font.getmask(character)) != bytes(font.getmask(NONCHARACTER))


def caption(tile: Image.Image, text: str) -> Image.Image:
    """The tile with a line of text on white below it."""
    captioned = Image.new("RGB", (tile.width, tile.height + CAPTION), "white")
    captioned.paste(tile, (0, 0))
    text, font = legible(text, CAPTION_FONT)
    ImageDraw.Draw(captioned).text((tile.width / 2, tile.height + CAPTION / 2), text, "black", anchor="mm", font=font)
    return captioned


def contact_sheet(tiles: Sequence[Image.Image], columns: int = 5, tile: int = TILE) -> Image.Image:
    """Tiles in rows on white, each centred in a square of `tile` pixels."""
    columns = max(1, min(columns, len(tiles)))
    rows = -(-len(tiles) // columns)
    sheet = Image.new("RGB", (columns * (tile + GAP) + GAP, rows * (tile + GAP) + GAP), "white")
    for index, image in enumerate(tiles):
        row, column = divmod(index, columns)
        left = GAP + column * (tile + GAP) + (tile - image.width) // 2
        top = GAP + row * (tile + GAP) + (tile - image.height) // 2
        sheet.paste(image, (left, top))
    return sheet
