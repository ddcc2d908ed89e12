"""Reading one photo the way a person sees it.

Both stages read photos with this module, so a mask found by stage 1 lands on the same pixels in stage 2.
Needs Pillow and numpy only.
"""

from pathlib import Path

import numpy as np
from PIL import Image, ImageFile, ImageOps

from stage1_proposals.errors import UserError

# A photo that ends early is refused, never padded with grey.
ImageFile.LOAD_TRUNCATED_IMAGES = False


class PhotoError(UserError):
    """A photo that cannot be used; the message says why, without the path."""


def _to_eight_bits(image: Image.Image) -> Image.Image:
    """16-bit and floating-point greys to 8 bits: full range for 16-bit data, the image's own range otherwise."""
    values = np.asarray(image, dtype=np.float64)
    if not np.isfinite(values).all():
        raise PhotoError("has pixel values that are not finite")
    if image.mode.startswith("I;16") or (image.mode == "I" and values.min() >= 0 and 255 < values.max() <= 65535):
        low, high = 0.0, 65535.0
    else:
        low, high = (0.0, 255.0) if values.min() >= 0 and 1 < values.max() <= 255 else (values.min(), values.max())
    scaled = (values - low) / max(high - low, 1e-12) * 255
    return Image.fromarray(np.clip(np.rint(scaled), 0, 255).astype(np.uint8))


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


def read_photo(path: str | Path) -> np.ndarray:
    """Decode a photo as a person sees it: EXIF orientation applied, any mode brought to RGB.

    Returns:
        uint8 array (H, W, 3), RGB.

    Raises:
        PhotoError: it cannot be read, is no image, ends early, has no pixels or absurdly many.
    """
    try:
        with Image.open(path) as image:
            if 0 in image.size:
                raise PhotoError(f"has no pixels ({image.width} x {image.height})")
            image.load()
            return np.asarray(_to_rgb(ImageOps.exif_transpose(image)))
    except PhotoError:
        raise
    except Image.DecompressionBombError as error:
        raise PhotoError(f"is too large: {error}") from error
    except FileNotFoundError as error:
        raise PhotoError("does not exist") from error
    except PermissionError as error:
        raise PhotoError("may not be read (permission denied)") from error
    except Image.UnidentifiedImageError as error:
        empty = Path(path).is_file() and Path(path).stat().st_size == 0
        raise PhotoError("is empty (0 bytes)" if empty else "is not an image Pillow can read") from error
    except Exception as error:
        # Pillow's decoders raise nearly anything on damaged files, and one photo must not end a job of thousands.
        raise PhotoError(f"cannot be decoded: {error}") from error
