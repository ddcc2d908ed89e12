"""Pictures inside the page: made smaller, as JPEG in a `data:` address, until all together are large enough."""

import base64
import io
from collections.abc import Callable
from pathlib import Path

from PIL import Image

from pipelines.reporting.notes import Notes
from stage1_proposals.analysis.statistics import sample
from stage1_proposals.common.drawing import contact_sheet, draw_proposals
from stage1_proposals.images.decode import ImageError, read_image
from stage1_proposals.shards import ShardSet

WIDTH = 1200
MAX_BYTES = 8_000_000  # of all pictures of a page
SAMPLE = 10  # images of a sheet drawn here


class Album:
    """Makes the pictures of one page, and knows how many bytes they have."""

    def __init__(self, notes: Notes) -> None:
        self.notes = notes
        self.bytes = 0

    def picture(self, path: Path) -> str | None:
        """A PNG or JPEG file as a `data:` address; None, with a note, when it cannot be had."""
        return self._inline(path, lambda: Image.fromarray(read_image(path)))

    def sheet(self, directory: Path, shards: ShardSet) -> str | None:
        """A shard set's contact sheet: the one `make inspect` or `make demo` drew, else a small one drawn now.

        None, with a note, when there is neither a sheet nor an image.
        """
        drawn = [directory / "contact_sheet.png"]
        if len(list(directory.parent.glob("*/manifest.json"))) == 1:  # else it may be another set's
            drawn.append(directory.parent / "contact_sheet.png")
        for path in drawn:
            if path.is_file():
                return self.picture(path)
        return self._inline(directory, lambda: self._drawn(shards))

    def _drawn(self, shards: ShardSet) -> Image.Image:
        tiles, reason = [], "it holds no image"
        for record, image in sample(shards, Path(shards.image_root), SAMPLE, seed=0):
            if isinstance(image, ImageError):
                reason = f"{record.file_name} {image}"
            else:
                tiles.append(draw_proposals(image, record.masks(), record.seed))
        if not tiles:
            raise ImageError(f"no contact sheet beside it, and none could be drawn ({reason})")
        return contact_sheet(tiles)

    def _inline(self, path: Path, make: Callable[[], Image.Image]) -> str | None:
        if self.bytes >= MAX_BYTES:
            self.notes.lines.append(f"{self.notes.shown(path)}: not shown, the page has pictures enough")
            return None
        with self.notes.on(path):
            image = make()
            image.thumbnail((WIDTH, 2 * WIDTH))
            data = io.BytesIO()
            image.save(data, "JPEG", quality=80, optimize=True)
            self.bytes += len(data.getvalue())
            return f"data:image/jpeg;base64,{base64.b64encode(data.getvalue()).decode()}"
        return None
