"""Demo images of objects: crops of photographs with cut-out objects pasted on them, and the objects' masks."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFilter
from pycocotools import mask as coco_mask

from pipelines.demo_data import photographs
from stage1_proposals.common.masks import mask_fields

Outline = np.ndarray  # float64 (n, 2): corners x, y in order

PLAIN_SHARE = 0.2  # of the images have nothing pasted on them
MAX_OBJECTS = 5
MIN_VISIBLE_PIXELS = 100  # of an object that is labelled
CATEGORIES = ({"id": 1, "name": "thing"},)


def _traced(
    photograph: str, polygon: Sequence[Any] = (), circle: Sequence[float] = (), **_: str
) -> tuple[str, Outline]:
    if polygon:
        return photograph, np.array(polygon, dtype=float)
    (x, y, radius), angles = circle, np.linspace(0, 2 * np.pi, 32, endpoint=False)
    return photograph, np.stack([x + radius * np.cos(angles), y + radius * np.sin(angles)], axis=1)


# Objects in the photographs, traced by hand: a photograph's name and an outline in its pixels.
TRACED = tuple(_traced(**outline) for outline in photographs.MATERIALS["outlines"])


def random_outline(rng: np.random.Generator) -> Outline:
    """A random irregular shape about the origin, roughly two units across: a blob, a polygon or a bent band."""
    kind = rng.choice(["blob", "polygon", "band"], p=[0.5, 0.2, 0.3])
    if kind == "band":
        return _random_band(rng)
    if kind == "blob":
        angles = np.linspace(0, 2 * np.pi, 72, endpoint=False)
        waves = np.arange(2, 7)
        amplitudes = rng.uniform(0, 0.5, waves.size) / waves
        phases = rng.uniform(0, 2 * np.pi, waves.size)
        radii = 0.8 + (amplitudes * np.cos(angles[:, None] * waves + phases)).sum(axis=1)
    else:
        corners = int(rng.integers(3, 8))
        angles = 2 * np.pi * (np.arange(corners) + rng.uniform(-0.3, 0.3, corners)) / corners
        radii = rng.uniform(0.6, 1.1, corners)
    stretch = rng.uniform(0.5, 1)
    return np.stack([radii * np.cos(angles), radii * np.sin(angles) * stretch], axis=1)


def _random_band(rng: np.random.Generator) -> Outline:
    """A band of uneven width along an arc, like a strap or a leaf."""
    along = np.linspace(-1, 1, 24)
    bend = rng.uniform(0.2, 1.2)
    half_width = rng.uniform(0.12, 0.3) * (1 + rng.uniform(-0.4, 0.4) * along)
    angles = bend * along
    sides = [
        np.stack([radius * np.sin(angles), (1 / bend) - radius * np.cos(angles)], axis=1)
        for radius in (1 / bend + half_width, 1 / bend - half_width)
    ]
    return np.concatenate([sides[0], sides[1][::-1]])


def cut_out(name: str, outline: Outline, longest_side: int, angle: float) -> Image.Image:
    """Cut the inside of an outline out of a photograph.

    Args:
        outline: (n, 2) in the photograph's pixels; the part outside the photograph is cropped.
        longest_side: length in pixels to which the cut-out is resized before it is rotated.
        angle: degrees, counter-clockwise.

    Returns:
        RGBA image, transparent outside the outline, with a soft edge.
    """
    source = photographs.photograph(name)
    left, top = np.maximum(np.floor(outline.min(axis=0)) - 2, 0)
    right, bottom = np.minimum(np.ceil(outline.max(axis=0)) + 3, source.size)
    scale = longest_side / max(right - left, bottom - top)
    size = max(round((right - left) * scale), 1), max(round((bottom - top) * scale), 1)
    cut = source.resize(size, Image.Resampling.LANCZOS, box=(left, top, right, bottom))
    supersampling = 4  # for a smooth edge
    mask = Image.new("L", (size[0] * supersampling, size[1] * supersampling))
    corners = (outline - (left, top)) * scale * supersampling
    ImageDraw.Draw(mask).polygon([(x, y) for x, y in corners.tolist()], fill=255)
    cut.putalpha(mask.resize(size, Image.Resampling.BOX).filter(ImageFilter.GaussianBlur(0.8)))
    return cut.rotate(angle, Image.Resampling.BICUBIC, expand=True)


def random_object(longest_side: int, rng: np.random.Generator) -> Image.Image:
    """A random cut-out (RGBA): a real object, or an irregular shape filled with a piece of a photograph."""
    if rng.random() < 0.5:
        name, outline = TRACED[rng.integers(len(TRACED))]
        # A coin of 60 pixels is not enlarged to half an image.
        longest_side = min(longest_side, round(float(np.ptp(outline, axis=0).max()) * photographs.MAX_ENLARGEMENT))
        angle, tint = rng.normal(0, 15), 0.15
    else:
        name = rng.choice(photographs.SCENES + photographs.TEXTURES)
        shape = random_outline(rng)
        extent = np.ptp(shape, axis=0)
        source = photographs.photograph(name)
        largest_scale = 0.9 * min(source.width / extent[0], source.height / extent[1])
        shape *= min(largest_scale, rng.uniform(0.6, 1.5) * longest_side / extent.max())
        corner = rng.uniform(0, np.array(source.size) - np.ptp(shape, axis=0))
        outline = shape - shape.min(axis=0) + corner
        angle, tint = rng.uniform(-180, 180), 0.3
    cut = cut_out(name, outline, longest_side, angle)
    if rng.random() < 0.5:
        cut = cut.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    relit = photographs.relight(cut.convert("RGB"), rng, tint)
    relit.putalpha(cut.getchannel("A"))
    return relit


def paste(canvas: Image.Image, cut: Image.Image, corner: tuple[int, int]) -> None:
    """Paste a cut-out onto the canvas, with a faint shadow."""
    alpha = cut.getchannel("A")
    shadow = alpha.filter(ImageFilter.GaussianBlur(4)).point(lambda value: value * 0.4)
    canvas.paste((0, 0, 0), (corner[0] + 3, corner[1] + 4), shadow)
    canvas.paste(cut, corner, alpha)


def draw_image(rng: np.random.Generator) -> tuple[Image.Image, list[np.ndarray]]:
    """Draw one demo image.

    Returns:
        RGB, sides of 256 to 384 pixels.
        Visible part of each pasted object, bool (H, W), lowest first; those of at least `MIN_VISIBLE_PIXELS`.
    """
    size = photographs.random_size(rng)
    names = photographs.SCENES if rng.random() < 0.6 else photographs.TEXTURES
    canvas = photographs.random_crop(rng.choice(names), size, rng)
    masks: list[np.ndarray] = []
    if rng.random() < PLAIN_SHARE:
        return canvas, masks
    for _ in range(rng.integers(1, MAX_OBJECTS + 1)):
        cut = random_object(round(rng.uniform(0.2, 0.65) * min(size)), rng)
        # The centre lies inside the image; the rest may extend over its border or over other objects.
        x, y = rng.uniform(0.08, 0.92, 2) * size
        corner = round(x - cut.width / 2), round(y - cut.height / 2)
        paste(canvas, cut, corner)
        opaque = Image.new("L", canvas.size)
        opaque.paste(cut.getchannel("A"), corner)
        covered = np.asarray(opaque) > 127
        masks = [*(mask & ~covered for mask in masks), covered]
    return canvas, [mask for mask in masks if mask.sum() >= MIN_VISIBLE_PIXELS]


def draw_object_image(rng: np.random.Generator) -> tuple[Image.Image, list[np.ndarray]]:
    """As `draw_image`, but with at least one mask."""
    while True:
        image, masks = draw_image(rng)
        if masks:
            return image, masks


def annotations(image_id: int, masks: Sequence[np.ndarray]) -> list[dict[str, Any]]:
    """COCO annotations of an image's masks, bool (H, W), without `id`."""
    labels = {"image_id": image_id, "category_id": CATEGORIES[0]["id"], "iscrowd": 0}
    return [{**labels, **mask_fields(coco_mask.encode(np.asfortranarray(mask, np.uint8)))} for mask in masks]
