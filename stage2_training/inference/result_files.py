"""What a detector found, as files to look at and to measure: PNG masks and pictures. Label files are in stage 1."""

import csv
import io
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from stage1_proposals.common.drawing import draw_named
from stage1_proposals.common.errors import UserError
from stage1_proposals.common.label_files import WRITERS, ImageLabels, LabelPaths, LabelWriter, NewFiles, Spool
from stage1_proposals.common.run_lengths import decode
from stage1_proposals.images.decode import ImageError, read_image

PICTURE_SIDES = (640, 1600)  # shortest and longest of a picture's longer side, in pixels
JPEG_QUALITY = 90


class MaskWriter:
    """`masks/`, with a PNG of 16 bits for each image: pixels of the n-th object are n, of none 0.

    Where objects overlap, the best-scored is on top. `objects.csv` has a line for each object: the image, n, its class,
    its score and how many pixels its mask has.
    """

    def __init__(self, out: Path, image_root: Path, names: Sequence[str], files: NewFiles) -> None:
        self.names, self.files, self.folder = names, files, out / "masks"
        self.paths = LabelPaths(self.folder, ".png")
        self.lines = Spool()
        self.table = csv.writer(self.lines, lineterminator="\n")
        self.table.writerow(("image", "object", "class", "score", "pixels"))

    def write(self, labels: ImageLabels) -> None:
        """See `LabelWriter`."""
        path, areas = self.paths.of(labels.file_name), []
        numbers = np.zeros(labels.size, np.uint16)
        for number, counts in reversed(list(enumerate(labels.counts, 1))):
            mask = decode([counts], labels.size)[0].astype(bool)
            numbers[mask] = number
            areas.append(int(mask.sum()))
        objects = zip(labels.classes, labels.scores, reversed(areas), strict=True)
        for number, (index, score, area) in enumerate(objects, 1):
            self.table.writerow((labels.file_name, number, self.names[index], f"{score:.4f}", area))
        self.files.write_once(path, lambda: _png(numbers))

    def close(self) -> None:
        """See `LabelWriter`."""
        self.files.write(self.folder / "objects.csv", self.lines.lines())


class PictureWriter:
    """`pictures/`, with a JPEG of each image: its objects with their outlines, names and scores."""

    def __init__(self, out: Path, image_root: Path, names: Sequence[str], files: NewFiles) -> None:
        self.names, self.files, self.image_root = names, files, image_root
        self.paths = LabelPaths(out / "pictures", ".jpg")

    def write(self, labels: ImageLabels) -> None:
        """See `LabelWriter`.

        Raises:
            UserError: also if the image cannot be read, or has another size now.
        """
        self.files.write_once(self.paths.of(labels.file_name), lambda: self._picture(labels))

    def _picture(self, labels: ImageLabels) -> bytes:
        path = self.image_root / labels.file_name
        try:
            pixels = read_image(path)
        except ImageError as error:
            raise UserError(f"{path}: {error}; {error.advice}") from error
        if pixels.shape[:2] != labels.size:
            height, width = labels.size
            raise UserError(f"{path}: has changed since its objects were found; it was {width} x {height} pixels")
        masks = (decode([counts], labels.size)[0] for counts in labels.counts)
        scored = zip(labels.classes, labels.scores, strict=True)
        captions = [f"{self.names[index]} {score:.2f}" for index, score in scored]
        shortest, longest = PICTURE_SIDES
        picture = draw_named(pixels, masks, captions, tile=min(max(*labels.size, shortest), longest))
        data = io.BytesIO()
        picture.save(data, "JPEG", quality=JPEG_QUALITY)
        return data.getvalue()

    def close(self) -> None:
        """See `LabelWriter`; there is nothing to do."""


def _png(numbers: NDArray[np.uint16]) -> bytes:
    data = io.BytesIO()
    Image.fromarray(numbers).save(data, "PNG")
    return data.getvalue()


# By the name of the format, as `label_files.WRITERS`: what `make predict` can write.
RESULT_WRITERS: dict[str, Callable[[Path, Path, Sequence[str], NewFiles], LabelWriter]] = {
    **WRITERS,
    "masks": MaskWriter,
    "pictures": PictureWriter,
}
