"""Which photos of a shard set are on its contact sheet: some, chosen by seed, as far as they are there."""

from contextlib import closing
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from stage1_proposals.contact_sheet import draw_proposals
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


def draw_sample(
    shards: ShardSet, root: Path, count: int, seed: int
) -> tuple[list[Image.Image], list[tuple[str, PhotoError]]]:
    """Draw `count` photos chosen by seed, as `draw_proposals`; name and reason of those that cannot be drawn.

    Raises:
        ShardError: a shard is damaged or gone.
    """
    chosen = np.random.default_rng(seed).permutation(shards.image_count)[:count]
    tiles, not_drawn = [], []
    for position in sorted(chosen):
        shard, row = shards.locate(int(position))
        with closing(ShardReader(shards.shard_path(shard))) as reader:
            record = reader.read(row)
        try:
            tiles.append(draw_proposals(photo_of(record, root), record))
        except PhotoError as error:
            not_drawn.append((record.file_name, error))
    return tiles, not_drawn
