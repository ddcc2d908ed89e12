"""Reading one image the way a person sees it.

Both stages read images with this module, so a mask found by stage 1 lands on the same pixels in stage 2.
Needs Pillow and numpy only.
"""

import logging
import os
import stat
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from math import ceil
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, ImageFile, ImageOps

from stage1_proposals.common.errors import UserError

# Phones and medium format cameras take up to 200 megapixels (16,320 x 12,240).
MAX_PIXELS = 200_000_000
# What images come in. Others of Pillow's formats are for documents, games and instruments, and one of them (EPS)
# starts a program.
FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")
KINDS = ((stat.S_ISDIR, "directory"), (stat.S_ISFIFO, "FIFO"), (stat.S_ISSOCK, "socket"))
VALUES_AT_ONCE = 1 << 20
REDUCING_GAP = 2
TURNED = (5, 6, 7, 8)  # EXIF orientations that swap height and width

# An image that ends early is refused, never padded with grey.
ImageFile.LOAD_TRUNCATED_IMAGES = False
# Pillow warns above this many pixels and raises above twice as many.
Image.MAX_IMAGE_PIXELS = MAX_PIXELS // 2
# An image is either used, and then nothing need be said, or refused, and then the ImageError says why. Filters are set
# here, once: `warnings.catch_warnings` is not made for threads that decode side by side.
warnings.filterwarnings("ignore", module=r"PIL\.")
logging.getLogger("PIL").setLevel(logging.CRITICAL)


class ImageError(UserError):
    """An image that cannot be used; the message says why, without the path."""


def _to_eight_bits(image: Image.Image) -> Image.Image:
    """16-bit and floating-point greys to 8 bits: full range for 16-bit data, the image's own range otherwise."""
    values = np.asarray(image)
    low, high = float(values.min()), float(values.max())
    if not np.isfinite([low, high]).all():
        raise ImageError("has pixel values that are not finite")
    if image.mode.startswith("I;16") or (image.mode == "I" and low >= 0 and 255 < high <= 65535):
        low, high = 0.0, 65535.0
    elif low >= 0 and 1 < high <= 255:
        low, high = 0.0, 255.0
    flat = values.reshape(-1)
    seen = np.empty(flat.shape, np.uint8)
    for start in range(0, len(flat), VALUES_AT_ONCE):  # all at once would take many times the image's own memory
        part = slice(start, start + VALUES_AT_ONCE)
        scaled = (flat[part].astype(np.float64) - low) / max(high - low, 1e-12) * 255
        seen[part] = np.clip(np.rint(scaled), 0, 255)
    return Image.fromarray(seen.reshape(values.shape))


def _to_rgb(image: Image.Image) -> Image.Image:
    """Any Pillow mode to RGB; transparency is seen against white."""
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode == "F" or image.mode.startswith("I"):
        return _to_eight_bits(image).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image).convert("RGB")
    return image.convert("RGB")


def _check_file(path: str | Path) -> None:
    """Refuse what is no file: opening a FIFO would wait for ever."""
    status = os.stat(path)
    if not stat.S_ISREG(status.st_mode):
        kind = next((name for is_kind, name in KINDS if is_kind(status.st_mode)), "device")
        raise ImageError(f"is a {kind}, not a file")
    if status.st_size == 0:
        raise ImageError("is empty (0 bytes)")


def _reason(error: Exception) -> str:
    """What a decoder says, fit for a shard's column: some quote the file."""
    text = str(error) or type(error).__name__
    return "".join(character if character.isprintable() else " " for character in text)[:200]


@contextmanager
def _opened(path: str | Path) -> Iterator[Image.Image]:
    """An image before its pixels are read; what goes wrong with it meanwhile becomes a ImageError."""
    try:
        _check_file(path)
        with Image.open(path, formats=FORMATS) as image:
            if 0 in image.size:
                raise ImageError(f"has no pixels ({image.width} x {image.height})")
            yield image
    except ImageError:
        raise
    except Image.DecompressionBombError as error:
        raise ImageError(f"is too large: it has more than {MAX_PIXELS:,} pixels") from error
    except FileNotFoundError as error:
        raise ImageError("is a link to nowhere" if os.path.islink(path) else "does not exist") from error
    except PermissionError as error:
        raise ImageError("may not be read (permission denied)") from error
    except Image.UnidentifiedImageError as error:
        raise ImageError("is not an image Pillow can read") from error
    except Exception as error:
        # Pillow's decoders raise nearly anything on damaged files, and one image must not end a job of thousands.
        if isinstance(error, OSError) and error.strerror:
            raise ImageError(f"cannot be read ({error.strerror})") from error
        raise ImageError(f"cannot be decoded: {_reason(error)}") from error


def _pixels(image: Image.Image) -> np.ndarray:
    """A loaded image's pixels, the right way up; in place, since a copy of the largest images has 800 MB."""
    ImageOps.exif_transpose(image, in_place=True)
    return np.asarray(_to_rgb(image))


def read_size(path: str | Path) -> tuple[int, int]:
    """Height and width of an image as `read_image` gives it, in pixels, from its header alone.

    Raises:
        ImageError: it cannot be read, is no image, has no pixels or more than `MAX_PIXELS`.
    """
    with _opened(path) as image:
        width, height = image.size
        turned = image.getexif().get(ExifTags.Base.Orientation, 1) in TURNED
    return (width, height) if turned else (height, width)


def read_image(path: str | Path) -> np.ndarray:
    """Decode an image as a person sees it: EXIF orientation applied, any mode brought to RGB; of several frames, one.

    Returns:
        uint8 array (H, W, 3), RGB.

    Raises:
        ImageError: it cannot be read, is no image, ends early, has no pixels or more than `MAX_PIXELS`.
    """
    with _opened(path) as image:
        image.load()
        return _pixels(image)


def read_reduced(path: str | Path, short_side: int) -> tuple[np.ndarray, tuple[int, int]]:
    """Decode an image that is wanted small: a large JPEG at 1/2, 1/4 or 1/8 of its size, which is several times faster.

    Args:
        short_side: pixels; what is decoded has at least `REDUCING_GAP` times as many, so that resizing blurs as it
            would from the whole image.

    Returns:
        uint8 array (h, w, 3), RGB, and the image's own (height, width) as `read_image` gives them.

    Raises:
        ImageError: as `read_image`.
    """
    with _opened(path) as image:
        width, height = image.size
        share = REDUCING_GAP * short_side / min(width, height)
        image.draft(image.mode, (ceil(width * share), ceil(height * share)))  # does nothing to other formats
        image.load()
        turned = image.getexif().get(ExifTags.Base.Orientation, 1) in TURNED  # a PNG has it behind its pixels
        return _pixels(image), (width, height) if turned else (height, width)
