"""The images of records, and a random sample of them."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from stage1_proposals.images.decode import ImageError, read_image
from stage1_proposals.shards import ImageRecord, ShardSet


def read_record_image(record: ImageRecord, root: Path) -> NDArray[np.uint8]:
    """A record's image, uint8 (H, W, 3).

    Raises:
        ImageError: the image cannot be read, or its size has changed.
    """
    image = read_image(root / record.file_name)
    height, width = image.shape[:2]
    if (height, width) != (record.height, record.width):
        raise ImageError(f"is {width} x {height} pixels now, but its masks are for {record.width} x {record.height}")
    return image


def sample(
    shards: ShardSet, root: Path, count: int, seed: int
) -> Iterator[tuple[ImageRecord, NDArray[np.uint8] | ImageError]]:
    """A random sample of `count` records, in the set's order, each with its image, uint8 (H, W, 3), or the error.

    Raises:
        ShardError: a shard is damaged or missing.
    """
    chosen = np.random.default_rng(seed).permutation(shards.image_count)[:count]
    for position in sorted(chosen):
        shard, row = shards.locate(int(position))
        with closing(shards.reader(shard)) as reader:
            record = reader.read(row)
        try:
            yield record, read_record_image(record, root)
        except ImageError as error:
            yield record, error
