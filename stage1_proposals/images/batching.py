"""Bringing images to the backbone's input size, in batches."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from stage1_proposals.images.decode import ImageError, read_reduced


def input_size(height: int, width: int, short_side: int, long_side: int, stride: int) -> tuple[int, int]:
    """Backbone input size: shorter side `short_side`, longer at most `long_side`, both rounded to the stride.

    Whole cells make each cell of the feature map cover the same share of the image, with no padding to leave
    out, and images of like aspect share one size and so one batch. The stretch is at most half a cell.
    """
    scale = min(short_side / min(height, width), long_side / max(height, width))
    most = long_side // stride

    def whole_cells(pixels: int) -> int:
        return stride * max(1, min(round(pixels * scale / stride), most))

    return whole_cells(height), whole_cells(width)


@dataclass(frozen=True)
class LoadedImage:
    """One image ready for the backbone, or the reason why it is not.

    Attributes:
        index: position in the task's list.
        size: (height, width) in pixels of the image itself.
        pixels: uint8 (h, w, 3), RGB, resized.
        error: why the image cannot be used, or None.
    """

    index: int
    size: tuple[int, int]
    pixels: NDArray[np.uint8]
    error: str | None = None


def load_image(path: Path, index: int, short_side: int, long_side: int, stride: int) -> LoadedImage:
    """Read and resize (antialiased bilinear) one image; one that cannot be read is returned with its error."""
    try:
        pixels, (height, width) = read_reduced(path, short_side)
    except ImageError as error:
        return LoadedImage(index, (0, 0), np.zeros((0, 0, 3), np.uint8), str(error))
    rows, columns = input_size(height, width, short_side, long_side, stride)
    resized = Image.fromarray(pixels).resize((columns, rows), Image.Resampling.BILINEAR)
    return LoadedImage(index, (height, width), np.asarray(resized))


def load_images(
    paths: Sequence[Path], short_side: int, long_side: int, stride: int, threads: int, ahead: int
) -> Iterator[LoadedImage]:
    """Images in order, decoded by threads at most `ahead` of the consumer."""
    with ThreadPoolExecutor(threads) as pool:
        jobs = ((path, index, short_side, long_side, stride) for index, path in enumerate(paths))
        queue: list[Future[LoadedImage]] = [pool.submit(load_image, *job) for job in islice(jobs, ahead)]
        try:
            while queue:
                image = queue.pop(0).result()
                queue += [pool.submit(load_image, *job) for job in islice(jobs, 1)]
                yield image
        finally:
            for future in queue:
                future.cancel()


def batch_by_size(images: Iterable[LoadedImage], batch_size: int) -> Iterator[list[LoadedImage]]:
    """Group images of equal input size into batches; which images share one depends on their order alone."""
    waiting: dict[tuple[int, ...], list[LoadedImage]] = defaultdict(list)
    for image in images:
        group = waiting[image.pixels.shape]
        group.append(image)
        if len(group) == batch_size:
            yield waiting.pop(image.pixels.shape)
    yield from waiting.values()
