"""Lines of text: rendered as a flat strip, then drawn along a straight or curved baseline."""

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont
from scipy.ndimage import gaussian_filter, map_coordinates

from pipelines.demo_data.photographs import MATERIALS

FONTS = MATERIALS["fonts"]
PLATE_MARGIN = 4  # image pixels that a plate extends beyond the ink
POINTS_PER_EDGE = 7  # CTW1500 has seven points along the top of a line and seven along its bottom
_SUPERSAMPLING = 2  # strips are rendered this much larger than they appear in the image
_PADDING = 8  # empty strip pixels around the ink, where edges and outlines fade out


@cache
def _font(name: str, size: int) -> ImageFont.FreeTypeFont:
    path = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / name
    return ImageFont.truetype(path, size, layout_engine=ImageFont.Layout.BASIC)


@dataclass(frozen=True)
class Strip:
    """One flat line of text: coverage in [0, 1] at `_SUPERSAMPLING` times its size, padded by `_PADDING`."""

    ink: np.ndarray  # float32 (h, w)
    outlined: np.ndarray  # float32 (h, w): the ink and a border around it
    glyph_centres: np.ndarray  # float64 (characters without spaces,): along the ink, from its middle

    @property
    def size(self) -> tuple[float, float]:
        """Width and height of the ink in image pixels."""
        height, width = self.ink.shape
        return (width - 2 * _PADDING) / _SUPERSAMPLING, (height - 2 * _PADDING) / _SUPERSAMPLING


def render_strip(text: str, font_name: str, font_size: float) -> Strip:
    """Render a line of text in one of `FONTS`, `font_size` in image pixels.

    Raises:
        ValueError: the text leaves no ink.
    """
    font = _font(font_name, round(font_size * _SUPERSAMPLING))
    left, top, right, bottom = (round(side) for side in font.getbbox(text))
    origin = (2 * _PADDING - left, 2 * _PADDING - top)

    def draw(border: int) -> Image.Image:
        canvas = Image.new("L", (right - left + 4 * _PADDING, bottom - top + 4 * _PADDING))
        ImageDraw.Draw(canvas).text(origin, text, fill=255, font=font, stroke_width=border)
        return canvas

    letters = draw(0)
    # The font's box has space beside the first and the last letter; the ink's has none.
    ink_box = letters.getbbox()
    if ink_box is None:
        raise ValueError(f"{text!r} leaves no ink")
    x0, y0, x1, y1 = ink_box
    box = (x0 - _PADDING, y0 - _PADDING, x1 + _PADDING, y1 + _PADDING)
    ink, outlined = (
        np.asarray(canvas.crop(box), dtype=np.float32) / 255
        for canvas in (letters, draw(max(round(font_size * _SUPERSAMPLING / 14), 2)))
    )
    ends = np.array([font.getlength(text[:index]) for index in range(len(text) + 1)])
    middles = (ends[:-1] + ends[1:]) / 2 + origin[0] - (x0 + x1) / 2
    inked = [index for index, character in enumerate(text) if not character.isspace()]
    return Strip(ink, outlined, middles[inked] / _SUPERSAMPLING)


@dataclass(frozen=True)
class Baseline:
    """Where a strip is in the image: bent to an arc, rotated, and moved.

    Strip coordinates (u, v) are image pixels right and down from the middle of the ink.
    """

    centre: tuple[float, float]  # x, y in the image of the middle of the ink
    angle: float  # radians, clockwise as seen
    radius: float  # pixels; > 0 arches up, < 0 sags, infinite is straight

    def to_image(self, points: np.ndarray) -> np.ndarray:
        """(..., 2) strip coordinates u, v -> (..., 2) image coordinates x, y."""
        u, v = points[..., 0], points[..., 1]
        if np.isfinite(self.radius):
            distance, turn = self.radius - v, u / self.radius
            u, v = distance * np.sin(turn), self.radius - distance * np.cos(turn)
        cos, sin = np.cos(self.angle), np.sin(self.angle)
        return np.stack([u * cos - v * sin, u * sin + v * cos], axis=-1) + self.centre

    def to_strip(self, points: np.ndarray) -> np.ndarray:
        """The inverse of `to_image`, for points up to half a turn around an arc."""
        x, y = points[..., 0] - self.centre[0], points[..., 1] - self.centre[1]
        cos, sin = np.cos(self.angle), np.sin(self.angle)
        u, v = x * cos + y * sin, y * cos - x * sin
        if np.isfinite(self.radius):
            sign = np.sign(self.radius)
            u, v = (
                self.radius * np.arctan2(sign * u, sign * (self.radius - v)),
                self.radius - sign * np.hypot(u, self.radius - v),
            )
        return np.stack([u, v], axis=-1)


def outline(strip: Strip, baseline: Baseline) -> np.ndarray:
    """The line's polygon, in CTW1500's order.

    Returns:
        float64 (14, 2) x, y in image pixels: along the top edge of the ink from left to right, then along the bottom
        from right to left.
    """
    width, height = np.array(strip.size) + 1  # half a pixel around the ink for its soft edge
    u = np.linspace(-width / 2, width / 2, POINTS_PER_EDGE)
    top = np.stack([u, np.full_like(u, -height / 2)], axis=1)
    return baseline.to_image(np.concatenate([top, top[::-1] * (1, -1)]))


@dataclass(frozen=True)
class Paint:
    """How a line looks. Colours are float RGB (3,) in [0, 255]."""

    ink: np.ndarray
    border: np.ndarray | None = None  # drawn around every letter
    plate: np.ndarray | None = None  # drawn under the whole line
    blur: float = 0.0  # pixels; makes the line illegible


def paint_line(pixels: np.ndarray, strip: Strip, baseline: Baseline, paint: Paint) -> None:
    """Draw a line of text onto `pixels`, float32 (H, W, 3) in [0, 255], in place."""
    # All but the line's surroundings would stay as it is: border, plate and blur reach so far beyond the outline, and
    # an arc a few pixels beyond its corners.
    reach = PLATE_MARGIN + 8 + int(np.ceil(4 * paint.blur))
    corners = outline(strip, baseline)
    left, top = np.maximum(np.floor(corners.min(axis=0)).astype(int) - reach, 0)
    right, bottom = np.ceil(corners.max(axis=0)).astype(int) + reach
    pixels = pixels[top:bottom, left:right]
    y, x = np.mgrid[top : top + pixels.shape[0], left : left + pixels.shape[1]]
    u, v = np.moveaxis(baseline.to_strip(np.stack([x, y], axis=-1).astype(float)), -1, 0)
    rows, columns = strip.ink.shape
    position = [v * _SUPERSAMPLING + (rows - 1) / 2, u * _SUPERSAMPLING + (columns - 1) / 2]

    def blend(colour: np.ndarray, coverage: np.ndarray) -> None:
        alpha = gaussian_filter(coverage, paint.blur) if paint.blur else coverage
        pixels[:] += alpha[..., None] * (colour - pixels)

    if paint.plate is not None:
        width, height = strip.size
        inside = np.minimum(width / 2 - abs(u), height / 2 - abs(v)) + PLATE_MARGIN
        blend(paint.plate, np.clip(inside + 0.5, 0, 1))
    if paint.border is not None:
        blend(paint.border, map_coordinates(strip.outlined, position, order=1))
    blend(paint.ink, map_coordinates(strip.ink, position, order=1))
