"""Some photos of a shard set, chosen by seed, as far as they are there and as they were."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from stage1_proposals.photos import PhotoError, read_photo
from stage1_proposals.shards import ImageRecord, ShardReader, ShardSet


def photo_of(record: ImageRecord, root: Path) -> NDArray[np.uint8]:
    """A record's photo, (H, W, 3).

    Raises:
        PhotoError: it cannot be read, or has changed its size since.
    """
    photo = read_photo(root / record.file_name)
    height, width = photo.shape[:2]
    if (height, width) != (record.height, record.width):
        raise PhotoError(f"is {width} x {height} pixels now, but its masks are for {record.width} x {record.height}")
    return photo


def sample(
    shards: ShardSet, root: Path, count: int, seed: int
) -> Iterator[tuple[ImageRecord, NDArray[np.uint8] | PhotoError]]:
    """`count` records chosen by seed, in their order, each with its photo (H, W, 3) or why it cannot be had.

    Raises:
        ShardError: a shard is damaged or gone.
    """
    chosen = np.random.default_rng(seed).permutation(shards.image_count)[:count]
    for position in sorted(chosen):
        shard, row = shards.locate(int(position))
        with closing(ShardReader(shards.shard_path(shard))) as reader:
            record = reader.read(row)
        try:
            yield record, photo_of(record, root)
        except PhotoError as error:
            yield record, error
