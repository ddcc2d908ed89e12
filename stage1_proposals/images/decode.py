"""Reading one image as a person sees it.

Both stages read images with this module, so a mask found by stage 1 covers the same pixels in stage 2.
Needs Pillow and numpy only; `common.system.configure_process` sets Pillow's limits.
"""

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from math import ceil
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, ImageOps
from PIL.ImageFile import ImageFile
from PIL.TiffImagePlugin import TiffImageFile

from stage1_proposals.common.errors import UserError
from stage1_proposals.common.system import MAX_PIXELS

# Formats of photographs. Pillow's others are for documents, games and instruments, and one of them (EPS) starts a
# program.
FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")
FILE_KINDS = ((stat.S_ISDIR, "directory"), (stat.S_ISFIFO, "FIFO"), (stat.S_ISSOCK, "socket"))
VALUES_AT_ONCE = 1 << 20
REDUCING_GAP = 2
SIDEWAYS = (5, 6, 7, 8)  # EXIF orientations that swap height and width
# The longer side over the shorter one. Training resizes the longer side to 192 pixels and more; a longer strip would
# come near to having no height.
MAX_ASPECT = 100
BIT_DEPTHS = (8, 10, 12, 14, 16)  # of sensors whose values are stored in 16 bits
# Tags of TIFF: camera raw files are TIFFs whose first image is a preview.
NEW_SUBFILE_TYPE, DNG_VERSION = 254, 50706
REDUCED_RESOLUTION = 1


class ImageError(UserError):
    """An image that cannot be used; the message says why, without the path.

    Args:
        advice: what to do about it.
    """

    def __init__(self, what: str, advice: str = "repair or replace it") -> None:
        super().__init__(what)
        self.advice = advice


def _to_eight_bits(image: Image.Image) -> Image.Image:
    """Scale greys of more than 8 bits to 8 bits.

    Whole numbers from 0 are scaled from the range of the fewest bits (`BIT_DEPTHS`) that hold them, since cameras and
    microscopes store 10 to 14 bits in files of 16; other numbers from the image's own range.
    """
    values = np.asarray(image)
    low, high = float(values.min()), float(values.max())
    if not np.isfinite([low, high]).all():
        raise ImageError("has pixel values that are not finite")
    limits = [2**bits - 1.0 for bits in (BIT_DEPTHS if image.mode.startswith("I") else BIT_DEPTHS[:1])]
    if low >= 0 and 1 < high <= limits[-1]:
        low, high = 0.0, next(limit for limit in limits if high <= limit)
    flat = values.reshape(-1)
    eight_bits = np.empty(flat.shape, np.uint8)
    for start in range(0, len(flat), VALUES_AT_ONCE):  # all at once would take many times the image's memory
        part = slice(start, start + VALUES_AT_ONCE)
        scaled = (flat[part].astype(np.float64) - low) / max(high - low, 1e-12) * 255
        eight_bits[part] = np.clip(np.rint(scaled), 0, 255)
    return Image.fromarray(eight_bits.reshape(values.shape))


def _to_rgb(image: Image.Image) -> Image.Image:
    """Convert any Pillow mode to RGB; transparent pixels are put on white."""
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
    """Refuse a path that is not a regular file: opening a FIFO would block for ever."""
    status = os.stat(path)
    if not stat.S_ISREG(status.st_mode):
        kind = next((name for is_kind, name in FILE_KINDS if is_kind(status.st_mode)), "device")
        raise ImageError(f"is a {kind}, not a file")
    if status.st_size == 0:
        raise ImageError("is empty (0 bytes)")


def _reason(error: Exception) -> str:
    """Return a decoder's message as short printable text, since some quote the file's bytes."""
    text = str(error) or type(error).__name__
    return "".join(character if character.isprintable() else " " for character in text)[:200]


@contextmanager
def _opened(path: str | Path) -> Iterator[Image.Image]:
    """Open an image without reading its pixels; whatever goes wrong inside becomes an ImageError."""
    try:
        _check_file(path)
        with Image.open(path, formats=FORMATS) as image:
            if 0 in image.size:
                raise ImageError(f"has no pixels ({image.width} x {image.height})")
            if max(image.size) > MAX_ASPECT * min(image.size):
                raise ImageError(
                    f"is a strip of {image.width} x {image.height} pixels: its longer side may be at most {MAX_ASPECT} "
                    f"times the shorter one",
                    "cut it into pieces",
                )
            if image.format == "JPEG2000" and _is_cut_off(Path(path)):
                raise ImageError("is truncated")
            if is_camera_raw(image):
                raise ImageError("is a camera's raw file, of which only a preview can be read: convert it")
            yield image
    except ImageError:
        raise
    except Image.DecompressionBombError as error:
        what = f"is too large: it has more than {MAX_PIXELS:,} pixels"
        raise ImageError(what, "make it smaller, or cut it into pieces") from error
    except FileNotFoundError as error:
        raise ImageError("is a broken symbolic link" if os.path.islink(path) else "does not exist") from error
    except PermissionError as error:
        raise ImageError("may not be read (permission denied)") from error
    except Image.UnidentifiedImageError as error:
        raise ImageError("is not an image Pillow can read") from error
    except MemoryError as error:  # on a damaged file that states absurd sizes, or where memory is short
        raise ImageError("needs more memory than is available") from error
    except Exception as error:
        # Pillow's decoders raise nearly any exception on damaged files, and one image must not end a job of thousands.
        if isinstance(error, OSError) and error.strerror:
            raise ImageError(f"cannot be read ({error.strerror})") from error
        raise ImageError(f"cannot be decoded: {_reason(error)}") from error


def _is_cut_off(path: Path) -> bool:
    """Whether a JPEG 2000 file ends before its codestream does; cut before its first tile, it is read as black."""
    size = path.stat().st_size
    with path.open("rb") as file:
        start, kind = 0, b""
        # Boxes, each of four bytes of length, four of type and, where these are too few, eight of length.
        while kind != b"jp2c" and start < size:
            file.seek(start)
            head = file.read(16)
            if head.startswith(b"\xff\x4f\xff\x51"):  # no boxes, but the codestream by itself
                length = 0
                break
            length, kind = int.from_bytes(head[:4]), head[4:8]
            if length == 1:
                length = int.from_bytes(head[8:])
            start += length or size
        if length:
            return kind == b"jp2c" and start > size
        file.seek(-2, os.SEEK_END)  # the codestream takes the rest of the file
        return file.read() != b"\xff\xd9"


def is_camera_raw(image: Image.Image) -> bool:
    """Return whether an opened image is but the preview in a camera's raw file (DNG, NEF, ARW)."""
    if not isinstance(image, TiffImageFile):
        return False
    return DNG_VERSION in image.tag_v2 or bool(image.tag_v2.get(NEW_SUBFILE_TYPE, 0) & REDUCED_RESOLUTION)


def _displayed_size(image: Image.Image) -> tuple[int, int]:
    """Return (height, width) of an opened image as it is displayed."""
    # Pillow swaps the sides of a TIFF itself. A PNG without EXIF before its pixels is decoded to look behind them.
    sideways = image.format != "TIFF" and image.getexif().get(ExifTags.Base.Orientation) in SIDEWAYS
    return (image.width, image.height) if sideways else (image.height, image.width)


def _pixels(image: Image.Image) -> np.ndarray:
    """Decode an opened image's pixels, upright; in place, since a copy of the largest images takes 800 MB."""
    colours = {"RGB": 3, "RGBA": 3, "LA": 1}.get(image.mode, 0)
    has_16_bits = isinstance(image, ImageFile) and any(";16" in str(tile.args) for tile in image.tile)
    image.load()
    # Of 16 bits, Pillow keeps the upper 8. Values of 10 to 14 bits would come out nearly black and coarse.
    if colours and has_16_bits and max(image.getextrema()[:colours])[1] < 64:  # type: ignore[index]
        raise ImageError("has colours of 16 bits that use 14 bits at most, and would be nearly black: convert it to 8")
    ImageOps.exif_transpose(image, in_place=True)
    return np.asarray(_to_rgb(image))


def read_size(path: str | Path) -> tuple[int, int]:
    """Return (height, width) of the array that `read_image` would return, from the file's header where possible.

    Raises:
        ImageError: the file cannot be read, is not an image, or has no pixels or more than `MAX_PIXELS`.
    """
    with _opened(path) as image:
        return _displayed_size(image)


def read_image(path: str | Path) -> np.ndarray:
    """Decode an image as a person sees it: EXIF orientation applied, any mode converted to RGB, the first frame.

    Returns:
        uint8 array (H, W, 3), RGB.

    Raises:
        ImageError: the file cannot be read, is not an image, is truncated, or has no pixels or more than `MAX_PIXELS`.
    """
    with _opened(path) as image:
        return _pixels(image)


def read_reduced(path: str | Path, short_side: int) -> tuple[np.ndarray, tuple[int, int]]:
    """Decode an image that will be resized: a large JPEG at 1/2, 1/4 or 1/8 of its size, which is several times faster.

    Args:
        short_side: of the resized image, in pixels. The decoded image has at least `REDUCING_GAP` times as many, so
            that resizing it blurs as resizing the full image would.

    Returns:
        uint8 array (h, w, 3), RGB, and the full image's (height, width).

    Raises:
        ImageError: as `read_image`.
    """
    with _opened(path) as image:
        size = _displayed_size(image)
        scale = REDUCING_GAP * short_side / min(size)
        image.draft(image.mode, (ceil(image.width * scale), ceil(image.height * scale)))  # JPEG only
        return _pixels(image), size


def to_pixels(image: Image.Image) -> np.ndarray:
    """The pixels of an image that Pillow has opened, as `read_image` gives them; the image stays as it is.

    Raises:
        ImageError: it has pixel values that are not finite.
    """
    return _pixels(image.copy())
