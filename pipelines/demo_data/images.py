"""Demo images: crops of real photographs, and crops with cut-out things pasted on them."""

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from pipelines.demo_data import outlines, sources

PLAIN_CROPS = 0.2  # share of images nothing is pasted on
MOST_THINGS = 5
LEAST_VISIBLE = 100  # pixels of a thing, for it to be labelled


def cut_out(name: str, outline: outlines.Outline, longest_side: int, angle: float) -> Image.Image:
    """Cut the inside of an outline out of a photograph.

    Args:
        name: the photograph, one of `sources`.
        outline: (n, 2) corners x, y in the photograph's pixels; what lies outside of it is cropped.
        longest_side: length in pixels to which the thing is scaled before it is turned.
        angle: degrees, counter-clockwise.

    Returns:
        RGBA image, soft at the edge, transparent outside.
    """
    source = sources.image(name)
    left, top = np.maximum(np.floor(outline.min(axis=0)) - 2, 0)
    right, bottom = np.minimum(np.ceil(outline.max(axis=0)) + 3, source.size)
    scale = longest_side / max(right - left, bottom - top)
    size = max(round((right - left) * scale), 1), max(round((bottom - top) * scale), 1)
    thing = source.resize(size, Image.Resampling.LANCZOS, box=(left, top, right, bottom))
    fine = 4  # the mask is drawn this much larger, so that its edge comes out smooth
    mask = Image.new("L", (size[0] * fine, size[1] * fine))
    corners = (outline - (left, top)) * scale * fine
    ImageDraw.Draw(mask).polygon([(x, y) for x, y in corners.tolist()], fill=255)
    thing.putalpha(mask.resize(size, Image.Resampling.BOX).filter(ImageFilter.GaussianBlur(0.8)))
    return thing.rotate(angle, Image.Resampling.BICUBIC, expand=True)


def random_thing(longest_side: int, rng: np.random.Generator) -> Image.Image:
    """A random cut-out (RGBA): a real thing, or an irregular shape filled with a piece of a photograph."""
    if rng.random() < 0.5:
        name, outline = outlines.TRACED[rng.integers(len(outlines.TRACED))]
        # A coin of 60 pixels is not blown up to half an image.
        longest_side = min(longest_side, round(float(np.ptp(outline, axis=0).max()) * sources.STRONGEST_ENLARGEMENT))
        angle, tint = rng.normal(0, 15), 0.15
    else:
        name = rng.choice(sources.SCENES + sources.TEXTURES)
        shape = outlines.random_outline(rng)
        extent = np.ptp(shape, axis=0)
        source = sources.image(name)
        roomy = 0.9 * min(source.width / extent[0], source.height / extent[1])
        shape *= min(roomy, rng.uniform(0.6, 1.5) * longest_side / extent.max())
        corner = rng.uniform(0, np.array(source.size) - np.ptp(shape, axis=0))
        outline = shape - shape.min(axis=0) + corner
        angle, tint = rng.uniform(-180, 180), 0.3
    thing = cut_out(name, outline, longest_side, angle)
    if rng.random() < 0.5:
        thing = thing.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    relit = sources.relight(thing.convert("RGB"), rng, tint)
    relit.putalpha(thing.getchannel("A"))
    return relit


def paste(canvas: Image.Image, thing: Image.Image, corner: tuple[int, int]) -> None:
    """Lay a thing on the canvas, with the faint shadow that makes it lie there."""
    alpha = thing.getchannel("A")
    shadow = alpha.filter(ImageFilter.GaussianBlur(4)).point(lambda value: value * 0.4)
    canvas.paste((0, 0, 0), (corner[0] + 3, corner[1] + 4), shadow)
    canvas.paste(thing, corner, alpha)


def draw_image(rng: np.random.Generator) -> tuple[Image.Image, list[np.ndarray]]:
    """One demo image, and where the things are that were pasted on it.

    Returns:
        RGB, sides of 256 to 384 pixels.
        Per thing of which at least `LEAST_VISIBLE` pixels are seen, lowest first: bool (H, W), its visible part.
    """
    size = sources.random_size(rng)
    names = sources.SCENES if rng.random() < 0.6 else sources.TEXTURES
    canvas = sources.random_crop(rng.choice(names), size, rng)
    masks: list[np.ndarray] = []
    if rng.random() < PLAIN_CROPS:
        return canvas, masks
    for _ in range(rng.integers(1, MOST_THINGS + 1)):
        thing = random_thing(round(rng.uniform(0.2, 0.65) * min(size)), rng)
        # The centre lies inside the image; the rest may reach over its edge or over other things.
        x, y = rng.uniform(0.08, 0.92, 2) * size
        corner = round(x - thing.width / 2), round(y - thing.height / 2)
        paste(canvas, thing, corner)
        opaque = Image.new("L", canvas.size)
        opaque.paste(thing.getchannel("A"), corner)
        covered = np.asarray(opaque) > 127
        masks = [*(mask & ~covered for mask in masks), covered]
    return canvas, [mask for mask in masks if mask.sum() >= LEAST_VISIBLE]
