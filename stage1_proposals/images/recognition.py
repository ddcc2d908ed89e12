"""Which files are images, told by their content: names often lack an extension, or have an unusual one."""

import os
import stat
from collections import Counter
from collections.abc import Sequence
from pathlib import Path, PurePath

from PIL import Image

from stage1_proposals.common.errors import quoted
from stage1_proposals.images.decode import FORMATS, is_camera_raw

# Files with these extensions count as images unread: one that is damaged is then recorded as failed, not passed over.
EXTENSIONS = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".ppm", ".jp2"})
# Formats whose first bytes other files have as well: texts ("BMW", "P5 ..."), HEIC, and cameras' raw files.
AMBIGUOUS = frozenset({"AVIF", "BMP", "PPM", "TIFF"})
PREFIX_BYTES = 16  # as many as Pillow looks at
KINDS_NAMED = 6


def is_image(path: str | os.PathLike[str]) -> bool:
    """Return whether a file is an image that can be decoded, as far as its first bytes or its header tell.

    Of most files only the first bytes are read. A file that cannot be read is none.
    """
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):  # opening a FIFO would block
            return False
        with open(path, "rb", buffering=0) as file:
            prefix = file.read(PREFIX_BYTES)
    except OSError:
        return False
    Image.init()
    formats = [name for name in FORMATS if _accepts(name, prefix)]
    return bool(formats) and (AMBIGUOUS.isdisjoint(formats) or _has_header(Path(path)))


def _accepts(name: str, prefix: bytes) -> bool:
    accept = Image.OPEN[name][1]
    return accept is not None and accept(prefix) is True  # a text says which library is missing


def _has_header(path: Path) -> bool:
    try:
        with Image.open(path, formats=FORMATS) as image:
            return not is_camera_raw(image)
    except Image.DecompressionBombError:  # an image, which is recorded as too large
        return True
    except Exception:  # Pillow raises nearly any exception on what only begins like an image
        return False


def describe_passed_over(names: Sequence[str]) -> str:
    """One line on files that were passed over: how many, of which extensions, and the first name."""
    kinds = Counter(PurePath(name).suffix.lower() or "without extension" for name in names).most_common()
    listed = [f"{count:,} {kind}" for kind, count in kinds[:KINDS_NAMED]]
    listed += [f"{sum(count for _, count in kinds[KINDS_NAMED:]):,} others"] if kinds[KINDS_NAMED:] else []
    return (
        f"{len(names):,} files passed over (not images that can be read): {', '.join(listed)}; "
        f"the first is {quoted(names[0])}"
    )
