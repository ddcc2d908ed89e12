"""Loading images at the backbone's input size, in batches."""

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


def input_size(
    height: int, width: int, short_side: int, long_side: int, stride: int, full_size: bool = False
) -> tuple[int, int]:
    """Backbone input size (height, width): shorter side `short_side`, longer at most `long_side`, in whole strides.

    With `full_size`, `short_side` is the least, and only an image that exceeds `long_side` is made smaller.

    Rounding to the stride lets each cell of the feature map cover the same share of the image without padding, and
    images of similar aspect share one size and so a batch. It changes a side by at most half a stride or, where the
    longer side would exceed `long_side`, by less than a stride.
    """
    scale = short_side / min(height, width)
    scale = min(max(scale, 1) if full_size else scale, long_side / max(height, width))
    max_cells = long_side // stride

    def round_to_stride(pixels: int) -> int:
        return stride * max(1, min(round(pixels * scale / stride), max_cells))

    return round_to_stride(height), round_to_stride(width)


@dataclass(frozen=True)
class LoadedImage:
    """An image ready for the backbone, or the reason why it is not.

    Attributes:
        index: position in the task's list.
        size: (height, width) of the original image in pixels.
        pixels: uint8 (h, w, 3), RGB, resized to the input size.
        error: why the image cannot be used, or None.
    """

    index: int
    size: tuple[int, int]
    pixels: NDArray[np.uint8]
    error: str | None = None


def load_image(
    path: Path, index: int, short_side: int, long_side: int, stride: int, full_size: bool = False
) -> LoadedImage:
    """Read an image and resize it (antialiased bilinear); one that cannot be read is returned with its error."""
    try:
        pixels, (height, width) = read_reduced(path, long_side if full_size else short_side)
    except ImageError as error:
        return LoadedImage(index, (0, 0), np.zeros((0, 0, 3), np.uint8), str(error))
    rows, columns = input_size(height, width, short_side, long_side, stride, full_size)
    resized = Image.fromarray(pixels).resize((columns, rows), Image.Resampling.BILINEAR)
    return LoadedImage(index, (height, width), np.asarray(resized))


def load_images(
    paths: Sequence[Path],
    short_side: int,
    long_side: int,
    stride: int,
    threads: int,
    prefetch: int,
    full_size: bool = False,
) -> Iterator[LoadedImage]:
    """Load images in order; threads decode up to `prefetch` images before they are consumed."""
    with ThreadPoolExecutor(threads) as pool:
        jobs = ((path, index, short_side, long_side, stride, full_size) for index, path in enumerate(paths))
        queue: list[Future[LoadedImage]] = [pool.submit(load_image, *job) for job in islice(jobs, prefetch)]
        try:
            while queue:
                image = queue.pop(0).result()
                queue += [pool.submit(load_image, *job) for job in islice(jobs, 1)]
                yield image
        finally:
            for future in queue:
                future.cancel()


def batch_by_size(
    images: Iterable[LoadedImage], batch_size: int, max_side: int | None = None
) -> Iterator[list[LoadedImage]]:
    """Group images of equal input size into batches; which images share a batch depends on their order alone.

    Args:
        batch_size: images of a batch, at most.
        max_side: a batch has no more pixels than `batch_size` squares of this side, or is of one image.
    """
    waiting: dict[tuple[int, ...], list[LoadedImage]] = defaultdict(list)
    for image in images:
        group = waiting[image.pixels.shape]
        group.append(image)
        pixels = image.pixels.shape[0] * image.pixels.shape[1]
        if len(group) == batch_size or (max_side and (len(group) + 1) * pixels > batch_size * max_side**2):
            yield waiting.pop(image.pixels.shape)
    yield from waiting.values()
