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


def _circle(x: float, y: float, radius: float) -> list[tuple[float, float]]:
    angles = np.linspace(0, 2 * np.pi, 32, endpoint=False)
    return [(x + radius * np.cos(angle), y + radius * np.sin(angle)) for angle in angles]


# fmt: off
_TRACED = (
    ("astronaut.png", [  # the astronaut
        (155, 85), (156, 62), (170, 42), (190, 34), (205, 20), (232, 15), (262, 20), (285, 38), (299, 65), (300, 92),
        (290, 115), (275, 135), (266, 136), (258, 160), (257, 175), (280, 190), (298, 212), (304, 232), (330, 247),
        (346, 275), (358, 320), (362, 345), (330, 362), (305, 382), (288, 410), (278, 445), (276, 511), (60, 511),
        (28, 470), (25, 420), (20, 390), (40, 310), (45, 270), (70, 240), (112, 205), (114, 188), (125, 172),
        (145, 153), (165, 148), (183, 149), (178, 125), (160, 110)]),
    ("astronaut.png", [  # her helmet
        (280, 511), (277, 460), (285, 425), (305, 388), (335, 360), (370, 345), (400, 343), (435, 352), (465, 375),
        (487, 410), (497, 450), (500, 511)]),
    ("astronaut.png", [  # the shuttle
        (404, 0), (397, 20), (396, 42), (387, 42), (382, 60), (381, 95), (380, 120), (376, 165), (372, 185),
        (357, 208), (355, 222), (376, 226), (370, 262), (368, 285), (405, 290), (430, 283), (470, 277), (456, 268),
        (454, 230), (456, 212), (454, 60), (448, 45), (443, 40), (437, 50), (436, 25), (428, 0)]),
    ("camera.png", [  # the cameraman
        (200, 65), (225, 68), (250, 85), (268, 105), (268, 122), (258, 138), (300, 140), (324, 141), (323, 155),
        (318, 165), (328, 170), (331, 190), (318, 212), (300, 228), (304, 272), (280, 288), (245, 312), (206, 294),
        (175, 340), (140, 380), (150, 425), (150, 511), (138, 505), (100, 447), (92, 500), (90, 511), (0, 511),
        (0, 250), (25, 215), (55, 175), (75, 145), (105, 128), (130, 124), (152, 106), (163, 102), (172, 82),
        (185, 70)]),
    ("chelsea.png", [  # the cat's face
        (40, 0), (33, 60), (36, 110), (45, 160), (75, 200), (105, 240), (150, 262), (200, 277), (255, 282),
        (300, 268), (318, 235), (345, 190), (362, 140), (360, 100), (355, 72), (385, 25), (398, 0)]),
    ("coffee.png", [  # cup and saucer
        (174, 85), (182, 60), (205, 38), (240, 22), (285, 18), (330, 24), (365, 40), (390, 62), (398, 68), (415, 67),
        (424, 78), (417, 105), (440, 125), (465, 160), (478, 205), (477, 250), (460, 300), (425, 345), (375, 375),
        (315, 387), (255, 385), (200, 370), (150, 338), (110, 295), (85, 245), (80, 200), (90, 160), (115, 120),
        (145, 92)]),
    ("coffee.png", [  # the cup alone
        (174, 105), (176, 80), (190, 55), (220, 31), (260, 20), (300, 19), (345, 29), (380, 50), (402, 80),
        (409, 110), (400, 150), (385, 190), (370, 230), (340, 240), (315, 262), (300, 283), (265, 284), (245, 285),
        (228, 303), (205, 302), (196, 285), (203, 258), (218, 236), (195, 205), (180, 165), (174, 130)]),
    ("motorcycle_left.png", [  # the motorcycle
        (93, 200), (130, 195), (140, 165), (138, 150), (150, 145), (165, 150), (168, 160), (195, 163), (250, 170),
        (290, 192), (350, 188), (400, 165), (400, 140), (415, 122), (440, 130), (470, 135), (480, 122), (498, 112),
        (500, 80), (510, 90), (530, 105), (540, 128), (560, 140), (562, 160), (550, 185), (552, 200), (575, 255),
        (590, 265), (620, 275), (645, 305), (665, 330), (682, 370), (683, 410), (665, 440), (635, 452), (600, 440),
        (565, 412), (535, 375), (520, 340), (508, 325), (515, 295), (530, 280), (525, 255), (505, 220), (495, 205),
        (480, 235), (478, 290), (478, 320), (460, 355), (430, 378), (380, 375), (325, 368), (280, 362), (255, 385),
        (215, 402), (170, 390), (135, 355), (121, 315), (125, 280), (145, 250), (165, 238), (160, 225), (130, 230),
        (110, 245), (100, 240), (110, 222), (92, 215)]),
    ("coins.png", _circle(335, 44, 28)),
    ("coins.png", _circle(347, 187, 31)),
    ("coins.png", _circle(46, 260, 27)),
)
# fmt: on

# (photograph, outline in its pixels) of objects in the photographs, traced by hand.
TRACED: tuple[tuple[str, Outline], ...] = tuple((name, np.array(points, dtype=float)) for name, points in _TRACED)


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
