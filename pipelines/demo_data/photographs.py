"""The photographs that the demo images are made from: those inside scikit-image's wheel.

They are opened as files; the functions of `skimage.data` may download.
"""

from functools import cache
from importlib import resources

import numpy as np
from PIL import Image

# fmt: off
# Photographs of objects.
SCENES = (
    "astronaut.png", "camera.png", "chelsea.png", "coffee.png", "coins.png", "motorcycle_left.png", "rocket.jpg"
)
# Photographs of surfaces: backgrounds, and fillings of random shapes.
TEXTURES = ("brick.png", "grass.png", "gravel.png", "hubble_deep_field.jpg", "ihc.png", "moon.png", "retina.jpg")
# fmt: on
# Photographs without any lettering, so that every line of text on them is one that was drawn and labelled.
TEXT_FREE = tuple(
    sorted({*SCENES, *TEXTURES} - {"astronaut.png", "coins.png", "hubble_deep_field.jpg", "motorcycle_left.png"})
)

SHORTEST_SIDE, LONGEST_SIDE = 256, 384  # of a demo image, in pixels
MAX_ENLARGEMENT = 1.7


@cache
def photograph(name: str) -> Image.Image:
    """One of scikit-image's photographs as RGB."""
    with resources.as_file(resources.files("skimage") / "data" / name) as path, Image.open(path) as image:
        return image.convert("RGB")


def relight(image: Image.Image, rng: np.random.Generator, tint: float) -> Image.Image:
    """Change the lighting: brightness by up to 25 %, each colour channel by up to `tint` (0 to 1)."""
    gain = rng.uniform(0.8, 1.25) * rng.uniform(1 - tint, 1 + tint, 3)
    gamma = rng.uniform(0.8, 1.25)
    pixels = np.asarray(image, dtype=np.float32) / 255
    return Image.fromarray((np.clip(pixels**gamma * gain, 0, 1) * 255).astype(np.uint8))


def random_size(rng: np.random.Generator) -> tuple[int, int]:
    """Width and height of a demo image, in pixels."""
    width, height = rng.integers(SHORTEST_SIDE, LONGEST_SIDE + 1, 2)
    return int(width), int(height)


def random_crop(name: str, size: tuple[int, int], rng: np.random.Generator) -> Image.Image:
    """A random crop of a photograph, resized to `size` (width, height), randomly mirrored and relit."""
    source = photograph(name)
    widest = min(source.width / size[0], source.height / size[1])  # source pixels per pixel
    zoom = rng.uniform(min(1 / MAX_ENLARGEMENT, widest), min(widest, 2.5))
    width, height = size[0] * zoom, size[1] * zoom
    left, top = rng.uniform(0, source.width - width), rng.uniform(0, source.height - height)
    box = (left, top, min(left + width, source.width), min(top + height, source.height))
    crop = source.resize(size, Image.Resampling.LANCZOS, box=box)
    if rng.random() < 0.5:
        crop = crop.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return relight(crop, rng, tint=0.15 if name in TEXTURES else 0.08)
