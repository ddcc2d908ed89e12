"""The images of records, a random sample of them, and drawings of a sample and of similar proposals."""

from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from stage1_proposals.analysis.index import similar_proposals
from stage1_proposals.common.drawing import CAPTION, TILE, caption, draw_proposals
from stage1_proposals.common.errors import UserError
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
    shards: ShardSet, root: Path, count: int, seed: int, left_out: Callable[[str], None]
) -> Iterator[tuple[ImageRecord, NDArray[np.uint8]]]:
    """A random sample of `count` records, in the set's order, each with its image, uint8 (H, W, 3).

    Args:
        root: folder of the images.
        left_out: called with one line for each record whose image cannot be read or has another size now.

    Raises:
        ShardError: a shard is damaged or missing.
        UserError: no image can be read.
    """
    found = 0
    chosen = np.random.default_rng(seed).permutation(shards.image_count)[:count]
    for position in sorted(chosen):
        shard, row = shards.locate(int(position))
        with closing(shards.reader(shard)) as reader:
            record = reader.read(row)
        try:
            image = read_record_image(record, root)
        except ImageError as error:
            left_out(f"not drawn: {record.file_name} {error}")
            continue
        found += 1
        yield record, image
    if not found:
        raise UserError(f"no sampled image was found unchanged under {root}; pass their folder as --image-root")


def draw_sample(
    shards: ShardSet, root: Path, count: int, seed: int, left_out: Callable[[str], None]
) -> list[Image.Image]:
    """Drawings of the images of `sample` with their proposals, for a contact sheet; raises as `sample`."""
    samples = sample(shards, root, count, seed, left_out)
    return [draw_proposals(image, record.masks(), record.seed) for record, image in samples]


def draw_similar(
    shards: ShardSet, root: Path, image_id: int, row: int, count: int, report: Callable[[str], None]
) -> list[Image.Image]:
    """Drawings of a proposal and those most similar to it, `count` in all, each alone in its image.

    Args:
        root: folder of the images.
        row: number of the proposal in the image.
        report: called with a line for each proposal, and for each whose image cannot be read.

    Raises:
        UserError: there is no such proposal, or its image cannot be read.
        ShardError: a shard is damaged or missing.
    """
    query, neighbours = similar_proposals(shards, image_id, row, max(0, count - 1))
    tiles = []
    for proposal in (query, *neighbours):
        with closing(shards.reader(proposal.shard)) as reader:
            record = reader.read(proposal.image)
        name = f"{record.image_id}:{proposal.row}"
        report(f"{proposal.cosine:7.4f}  {name:<12} {record.file_name}")
        try:
            image = read_record_image(record, root)
        except ImageError as error:
            if proposal is query:
                raise UserError(f"{root / record.file_name} {error}; say where it is with --image-root") from error
            report(f"not drawn: {record.file_name} {error}")
            continue
        only = record.only(proposal.row)
        tile = draw_proposals(image, only.masks(), only.seed, TILE - CAPTION)
        tiles.append(caption(tile, f"{name}  " + ("the query" if proposal is query else f"{proposal.cosine:.3f}")))
    return tiles
