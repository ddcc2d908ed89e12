"""The real photographs the demo data are made from: those inside scikit-image's wheel.

They are opened as files, never through `skimage.data`'s functions, which may reach for the network.
"""

from functools import cache
from importlib import resources

import numpy as np
from PIL import Image

# Images of things.
SCENES = (
    "astronaut.png",
    "camera.png",
    "chelsea.png",
    "coffee.png",
    "coins.png",
    "motorcycle_left.png",
    "rocket.jpg",
)
# Images of surfaces: good to lay things on and to fill shapes with.
TEXTURES = ("brick.png", "grass.png", "gravel.png", "hubble_deep_field.jpg", "ihc.png", "moon.png", "retina.jpg")
# No letters of any size in them, so every line of text on them is one of ours.
TEXT_FREE = (
    "brick.png",
    "camera.png",
    "chelsea.png",
    "coffee.png",
    "grass.png",
    "gravel.png",
    "ihc.png",
    "moon.png",
    "retina.jpg",
    "rocket.jpg",
)

SHORTEST_SIDE, LONGEST_SIDE = 256, 384
STRONGEST_ENLARGEMENT = 1.7


@cache
def image(name: str) -> Image.Image:
    """One of scikit-image's photographs as RGB."""
    with resources.as_file(resources.files("skimage") / "data" / name) as path, Image.open(path) as image:
        return image.convert("RGB")


def relight(image: Image.Image, rng: np.random.Generator, tint: float) -> Image.Image:
    """Other light on the same thing: brightness by up to 25 %, each colour channel by up to `tint` (0 to 1)."""
    gain = rng.uniform(0.8, 1.25) * rng.uniform(1 - tint, 1 + tint, 3)
    gamma = rng.uniform(0.8, 1.25)
    pixels = np.asarray(image, dtype=np.float32) / 255
    return Image.fromarray((np.clip(pixels**gamma * gain, 0, 1) * 255).astype(np.uint8))


def random_size(rng: np.random.Generator) -> tuple[int, int]:
    """Width and height of a demo image in pixels."""
    width, height = rng.integers(SHORTEST_SIDE, LONGEST_SIDE + 1, 2)
    return int(width), int(height)


def random_crop(name: str, size: tuple[int, int], rng: np.random.Generator) -> Image.Image:
    """A random part of a photograph, scaled to `size` (width, height), perhaps mirrored, in other light."""
    source = image(name)
    widest = min(source.width / size[0], source.height / size[1])  # source pixels per pixel
    zoom = rng.uniform(min(1 / STRONGEST_ENLARGEMENT, widest), min(widest, 2.5))
    width, height = size[0] * zoom, size[1] * zoom
    left, top = rng.uniform(0, source.width - width), rng.uniform(0, source.height - height)
    box = (left, top, min(left + width, source.width), min(top + height, source.height))
    crop = source.resize(size, Image.Resampling.LANCZOS, box=box)
    if rng.random() < 0.5:
        crop = crop.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return relight(crop, rng, tint=0.15 if name in TEXTURES else 0.08)
