"""Bringing photos to the backbone's input size, in batches."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from stage1_proposals.photos import PhotoError, read_reduced


def input_size(height: int, width: int, short_side: int, long_side: int, stride: int) -> tuple[int, int]:
    """Backbone input size: shorter side `short_side`, longer at most `long_side`, both rounded to the stride.

    Whole cells make each cell of the feature map cover the same share of the photo, with no padding to leave
    out, and photos of like aspect share one size and so one batch. The stretch is at most half a cell.
    """
    scale = min(short_side / min(height, width), long_side / max(height, width))
    most = long_side // stride

    def whole_cells(pixels: int) -> int:
        return stride * max(1, min(round(pixels * scale / stride), most))

    return whole_cells(height), whole_cells(width)


@dataclass(frozen=True)
class Photo:
    """One photo ready for the backbone, or the reason why it is not.

    Attributes:
        index: position in the task's list.
        size: (height, width) in pixels of the photo itself.
        pixels: uint8 (h, w, 3), RGB, resized.
        error: why the photo cannot be used, or None.
    """

    index: int
    size: tuple[int, int]
    pixels: NDArray[np.uint8]
    error: str | None = None


def load_photo(path: Path, index: int, short_side: int, long_side: int, stride: int) -> Photo:
    """Read and resize (antialiased bilinear) one photo; one that cannot be read is returned with its error."""
    try:
        pixels, (height, width) = read_reduced(path, short_side)
    except PhotoError as error:
        return Photo(index, (0, 0), np.zeros((0, 0, 3), np.uint8), str(error))
    rows, columns = input_size(height, width, short_side, long_side, stride)
    resized = Image.fromarray(pixels).resize((columns, rows), Image.Resampling.BILINEAR)
    return Photo(index, (height, width), np.asarray(resized))


def load_photos(
    paths: Sequence[Path], short_side: int, long_side: int, stride: int, threads: int, ahead: int
) -> Iterator[Photo]:
    """Photos in order, decoded by threads at most `ahead` of the consumer."""
    with ThreadPoolExecutor(threads) as pool:
        jobs = ((path, index, short_side, long_side, stride) for index, path in enumerate(paths))
        queue: list[Future[Photo]] = [pool.submit(load_photo, *job) for job in islice(jobs, ahead)]
        try:
            while queue:
                photo = queue.pop(0).result()
                queue += [pool.submit(load_photo, *job) for job in islice(jobs, 1)]
                yield photo
        finally:
            for future in queue:
                future.cancel()


def batch_by_size(photos: Iterable[Photo], batch_size: int) -> Iterator[list[Photo]]:
    """Group photos of equal input size into batches; which photos share one depends on their order alone."""
    waiting: dict[tuple[int, ...], list[Photo]] = defaultdict(list)
    for photo in photos:
        group = waiting[photo.pixels.shape]
        group.append(photo)
        if len(group) == batch_size:
            yield waiting.pop(photo.pixels.shape)
    yield from waiting.values()
