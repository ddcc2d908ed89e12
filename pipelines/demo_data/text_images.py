"""Demo images with lines of text, and their labels in the two file formats of CTW1500."""

from collections.abc import Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape, quoteattr

import numpy as np
from PIL import Image, ImageDraw

from pipelines.demo_data import lettering, photographs

ILLEGIBLE = "###"  # CTW1500's transcription of an illegible line
MAX_LINES = 6
_ATTEMPTS_PER_LINE = 25
_MARGIN = 3  # pixels between a line and the image's border
_GAP = lettering.PLATE_MARGIN + 2  # pixels between two lines
_LUMA = np.array([0.299, 0.587, 0.114])


@dataclass(frozen=True)
class Line:
    """One labelled line of text."""

    polygon: np.ndarray  # int64 (14, 2) x, y in pixels: the top from left to right, then the bottom from right to left
    glyphs: np.ndarray  # int64 (characters without spaces, 2): centres
    text: str


def random_text(rng: np.random.Generator) -> str:
    """One to three words of signage, sometimes with an ampersand or a number."""
    words = [str(word) for word in rng.choice(photographs.MATERIALS["words"], rng.integers(1, 4), replace=False)]
    if len(words) > 1 and rng.random() < 0.25:
        words.insert(1, "&")
    if rng.random() < 0.15:
        words.append(str(rng.integers(2, 2000)))
    text = " ".join(words)
    return text.title() if rng.random() < 0.4 else text


def random_baseline(strip: lettering.Strip, rng: np.random.Generator) -> lettering.Baseline:
    """A straight, slanted or curved line through the origin that the strip can follow."""
    width, height = strip.size
    radius, angle = np.inf, rng.normal(0, 0.05)
    kind = rng.random()
    if kind < 0.5:
        # Not so tight that the letters' feet overlap.
        radius = max(width / rng.uniform(0.5, 2.4), 1.3 * height) * rng.choice([-1, 1])
        angle = rng.normal(0, 0.15)
    elif kind < 0.8:
        angle = rng.uniform(-0.7, 0.7)
    return lettering.Baseline((0.0, 0.0), float(angle), float(radius))


def random_paint(under: np.ndarray, rng: np.random.Generator, illegible: bool, height: float) -> lettering.Paint:
    """Colours that contrast with the pixels under the line, float (n, 3); blurred when `illegible`."""
    plate = rng.uniform(20, 235, 3) if rng.random() < 0.25 and not illegible else None
    background = under.mean(axis=0) if plate is None else plate
    dark = bool(background @ _LUMA > 127)
    ink = rng.uniform(0, 70, 3) if dark else rng.uniform(185, 255, 3)
    ink[rng.integers(3)] = rng.uniform(0, 140) if dark else rng.uniform(115, 255)
    if illegible:
        return lettering.Paint(ink, blur=0.14 * height)
    # On a busy background, or one of similar lightness, letters need a border to be legible.
    busy = plate is None and (under @ _LUMA).std() > 35
    faint = abs((ink - background) @ _LUMA) < 90
    bordered = busy or faint or rng.random() < 0.2
    border = rng.uniform(200, 255, 3) if dark else rng.uniform(0, 55, 3)
    return lettering.Paint(ink, border if bordered else None, plate)


def _covers(polygon: np.ndarray, size: tuple[int, int], border: int) -> np.ndarray:
    """Pixels of a polygon and of a border around it, bool (height, width)."""
    mask = Image.new("1", size)
    draw = ImageDraw.Draw(mask)
    corners = [(x, y) for x, y in polygon.tolist()]
    draw.polygon(corners, fill=1)
    draw.line([*corners, *corners[:2]], fill=1, width=2 * border + 1)
    return np.asarray(mask)


def draw_text_image(rng: np.random.Generator, illegible_share: float = 0.0) -> tuple[Image.Image, list[Line]]:
    """Draw an image with one to six lines of text, which do not overlap.

    Args:
        illegible_share: share of the lines, except the first, that are blurred and labelled `###`.

    Returns:
        The image (RGB, sides of 256 to 384 pixels) and its lines.
    """
    size = photographs.random_size(rng)
    pixels = np.array(photographs.random_crop(rng.choice(photographs.TEXT_FREE), size, rng), dtype=np.float32)
    taken = np.zeros(pixels.shape[:2], dtype=bool)
    wanted = int(rng.integers(1, MAX_LINES + 1))
    lines: list[Line] = []
    attempts = 0
    # Without any line yet, keep trying: short lines always fit somewhere.
    while len(lines) < wanted and (not lines or attempts < wanted * _ATTEMPTS_PER_LINE):
        attempts += 1
        text = random_text(rng)
        strip = lettering.render_strip(text, rng.choice(lettering.FONTS), rng.uniform(16, 44))
        baseline = random_baseline(strip, rng)
        outline = lettering.outline(strip, baseline)
        low = _MARGIN - outline.min(axis=0)
        high = np.array(size) - 1 - _MARGIN - outline.max(axis=0)
        if (low > high).any():
            continue
        centre = rng.uniform(low, high)
        baseline = lettering.Baseline((float(centre[0]), float(centre[1])), baseline.angle, baseline.radius)
        polygon = np.rint(lettering.outline(strip, baseline)).astype(np.int64)
        if (taken & _covers(polygon, size, _GAP)).any():
            continue
        inside = _covers(polygon, size, 0)
        taken |= inside
        illegible = bool(lines) and rng.random() < illegible_share
        paint = random_paint(pixels[inside], rng, illegible, strip.size[1])
        lettering.paint_line(pixels, strip, baseline, paint)
        on_line = np.stack([strip.glyph_centres, np.zeros_like(strip.glyph_centres)], axis=1)
        glyphs = np.rint(baseline.to_image(on_line)).astype(np.int64)
        lines.append(Line(polygon, glyphs, ILLEGIBLE if illegible else text))
    return Image.fromarray(np.clip(np.rint(pixels), 0, 255).astype(np.uint8)), lines


def xml_label(image_name: str, lines: Sequence[Line]) -> str:
    """A training label as XML: box, transcription, polygon and glyph centres of every line."""
    rows = ["<Annotations>", f" <image file={quoteattr(image_name)}>"]
    for line in lines:
        left, top = line.polygon.min(axis=0).tolist()
        width, height = (line.polygon.max(axis=0) - (left, top)).tolist()
        rows += [
            f'  <box height="{height}" left="{left}" top="{top}" width="{width}">',
            f"   <label>{escape(line.text)}</label>",
            f"   <segs>{','.join(map(str, line.polygon.ravel().tolist()))}</segs>",
            *(f'   <pts x="{x}" y="{y}" />' for x, y in line.glyphs.tolist()),
            "  </box>",
        ]
    return "\n".join([*rows, " </image>", "</Annotations>", ""])


def text_label(lines: Sequence[Line]) -> str:
    """A test label as text: a line of 28 numbers, `####` and the transcription for every line of text."""
    return "".join(f"{','.join(map(str, line.polygon.ravel().tolist()))},####{line.text}\n" for line in lines)
