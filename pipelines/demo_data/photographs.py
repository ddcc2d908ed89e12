"""The photographs that the demo images are made from: those inside scikit-image's wheel.

They are opened as files; the functions of `skimage.data` may download.
"""

import json
from functools import cache
from importlib import resources
from pathlib import Path

import numpy as np
from PIL import Image

# Fonts and words of signage; photographs of objects (`scenes`), and of surfaces (`textures`), which are backgrounds and
# fill random shapes; those without lettering, on which every line is drawn and labelled; objects traced by hand.
MATERIALS = json.loads(Path(__file__).with_name("materials.json").read_text())
SCENES, TEXTURES, TEXT_FREE = (MATERIALS[kind] for kind in ("scenes", "textures", "text_free"))

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
