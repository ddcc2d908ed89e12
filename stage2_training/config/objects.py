"""Fitting a config to the objects of its data: whole images or tiles of them, and the number of queries.

A query finds one object, so an image with more objects than queries cannot be segmented. An object smaller than a cell
of the mask predictions cannot be, either. Where objects are that many or that small, the run sees tiles.
"""

from contextlib import closing, suppress
from dataclasses import dataclass, replace
from math import ceil
from typing import Any

import numpy as np
from mmengine.config import Config
from numpy.typing import NDArray

from stage1_proposals.common.errors import UserError
from stage1_proposals.shards import ShardSet
from stage2_training.config.annotation_files import UNREADABLE, annotation_file, read_labels
from stage2_training.config.image_sizes import describe_images, image_scales, see_tiles, set_scales
from stage2_training.config.run_settings import SMALLEST_TILE
from stage2_training.saliency_prompt.detectors import detector_traits

# Queries: a quarter more than objects in all but the fullest hundredth of the images, in steps of 50. Twice as many as
# tiles have on average: objects gather. Of nuclei, the fullest hundredth of random tiles hold 1.4 times as many.
SPARE, SPARE_IN_TILES, PERCENTILE, STEP = 1.25, 2.0, 99, 50
# Tiles: of the largest part of an image's side with which no more queries than the paper's are needed, and at least
# three quarters of the objects have this side (root of their area) in pixels: a cell at stride 8.
PARTS, MOST_QUERIES, LEAST_SIDE = (2, 3, 4), 100, 8.0
LEAST_GAIN = 1.25  # in the objects' side; else smaller tiles are not worth their evaluations
LARGEST_SCALE = 2  # pixels of the network's input for one of a tile
DETECTIONS = 100  # that a model returns where its config says nothing
SHARDS = 16  # of a set that are looked at, spread evenly


@dataclass(frozen=True)
class Objects:
    """The O objects that a run trains on, in whole images or in tiles of them.

    Attributes:
        images: number of each object's image, int (O,).
        sides: root of each object's area in pixels of its image, float (O,).
        sizes: longer and shorter side of each object's image or tile, (O, 2).
        shares: the probability that a random tile shows a part of each object, (O,); 1 for whole images.
        spare: queries for one of the most objects.
    """

    images: NDArray[Any]
    sides: NDArray[Any]
    sizes: NDArray[Any]
    shares: NDArray[Any] | float = 1.0
    spare: float = SPARE

    def in_tiles(self, side: int) -> "Objects":
        """The objects of square tiles, in pixels of the image: as many as a random tile shows a part of, on average."""
        shown = np.minimum(1, (side + self.sides[:, None]) / self.sizes)
        sizes = np.minimum(self.sizes, side)
        return replace(self, sizes=sizes, shares=shown.prod(axis=1), spare=SPARE_IN_TILES)

    @property
    def image_count(self) -> int:
        """How many images have an object."""
        return len(np.unique(self.images))

    @property
    def most(self) -> int:
        """How many objects all but the fullest hundredth of the images or tiles have at most."""
        counts = np.bincount(self.images, weights=np.broadcast_to(self.shares, self.images.shape))
        return ceil(np.percentile(counts[counts > 0], PERCENTILE)) if len(self.images) else 0

    @property
    def longer_side(self) -> float:
        """That of the images, in pixels: their median."""
        _, first = np.unique(self.images, return_index=True)
        return float(np.median(self.sizes[first, 0]))

    def small_side(self, scale: tuple[float, float]) -> float:
        """The side below which a quarter of the objects are, once images are resized to fit into `scale`."""
        if not len(self.sides):
            return float("inf")
        factors = (np.sort(scale)[::-1] / self.sizes).min(axis=1)
        return float(np.percentile(self.sides * factors, 25))


def labelled_objects(dataset: Any) -> Objects | None:
    """The objects of the training labels; None where the file cannot be read, which `check_annotations` reports."""
    with suppress(*UNREADABLE):
        images, objects = read_labels(dataset)
        sizes = {each["id"]: (each["width"], each["height"]) for each in images}
        numbers = {image: number for number, image in enumerate(sizes)}
        of_image = np.asarray([numbers[each["image_id"]] for each in objects], int)
        sides = np.sqrt(np.asarray([each["area"] for each in objects], float))
        around = np.asarray([sizes[each["image_id"]] for each in objects], float).reshape(-1, 2)
        return Objects(of_image, sides, -np.sort(-around, axis=1))
    return None


def images_with_objects(dataset: Any) -> dict[int, str]:
    """The images that have an object: their places in the training labels, and their names.

    Raises:
        UserError: the file cannot be read.
    """
    try:
        images, objects = read_labels(dataset)
        ids = {each["image_id"] for each in objects}
        return {place: each["file_name"] for place, each in enumerate(images) if each["id"] in ids}
    except OSError as error:
        raise UserError(
            f"{annotation_file(dataset)}: cannot be read ({error.strerror}); `make data` makes it, or say where it is "
            f"with --data-root"
        ) from error
    except UNREADABLE as error:
        raise UserError(f"{annotation_file(dataset)}: is no COCO JSON of labelled images; correct the file") from error


def proposed_objects(shards: ShardSet, most: int | None = None) -> Objects:
    """The proposals of a shard set, or of `SHARDS` of its shards: the start on a large set takes no longer.

    Args:
        shards: to train on.
        most: proposals of an image that are trained on; None: all.
    """
    images, sides, sizes, begin = [], [], [], 0
    chosen = np.unique(np.linspace(0, len(shards.entries) - 1, SHARDS).round().astype(int))
    for index in chosen.tolist():
        with closing(shards.reader(index)) as reader:
            of_image = np.diff(reader.column("images/proposals_begin"))
            image_sizes = np.stack([reader.column("images/width"), reader.column("images/height")], axis=1)
            numbers = np.repeat(np.arange(len(of_image)), of_image)
            ranks = np.arange(len(numbers)) - np.repeat(np.cumsum(of_image) - of_image, of_image)
            used = slice(None) if most is None else ranks < most
            images.append(begin + numbers[used])
            sides.append(np.sqrt(reader.column("proposals/area"))[used])
            sizes.append(-np.sort(-image_sizes, axis=1)[numbers[used]])
            begin += len(of_image)
    return Objects(np.concatenate(images), np.concatenate(sides), np.concatenate(sizes))


def fit_to_objects(
    config: Config,
    objects: Objects,
    queries: int | None = None,
    image_size: int | None = None,
    tile: int | None = None,
) -> None:
    """Set what the network sees of an image, and the number of queries, never lower than the config has it; in place.

    Args:
        config: of a run; gets `objects`, which `describe_objects` reads.
        objects: that it trains on.
        queries, image_size: given by the user, and kept. With an image size, or for a model of boxes alone, no tiles
            are chosen here.
        tile: likewise, the side of tiles in pixels of the image; 0: none.
    """
    scales = list(image_scales(config.train_dataloader.dataset))
    scale = max(scales, key=lambda scale: scale[0] * scale[1], default=None)
    if tile is None:
        chooses = image_size is None and detector_traits(config.model.type).masks
        tile = _choose_tile(objects, scale, MOST_QUERIES if queries is None else None) if scale and chooses else 0
    if tile:
        see_tiles(config, tile)
        objects = objects.in_tiles(tile)
        if scale and image_size is None:
            scale = _tile_scale(scale, tile)
            for part in ("train", "val", "test"):
                if f"{part}_dataloader" in config:
                    set_scales(config[f"{part}_dataloader"].dataset, scale)
    if queries is None:
        set_queries(config, max(query_count(config) or 0, _queries_for(objects)))
    side = round(objects.small_side(scale), 1) if scale and len(objects.sides) else None
    config.objects = {"per_image": objects.most, "side": side}


def _choose_tile(objects: Objects, scale: tuple[int, int], most_queries: int | None) -> int:
    """The side of tiles, in pixels of the image; 0: whole images will do.

    Args:
        most_queries: None: as many as are needed.
    """
    sides = [round(objects.longer_side / part) for part in PARTS] if len(objects.sides) else []
    tiles = [side for side in sides if side >= SMALLEST_TILE]
    if not tiles:
        return 0
    seen = {0: (objects, objects.small_side(scale))}
    seen |= {tile: (cut := objects.in_tiles(tile), cut.small_side(_tile_scale(scale, tile))) for tile in tiles}
    enough = min(LEAST_SIDE, max(side for _, side in seen.values()) / LEAST_GAIN)
    good = (
        tile
        for tile, (cut, side) in seen.items()
        if side >= enough and (most_queries is None or _queries_for(cut) <= most_queries)
    )
    return next(good, tiles[-1])


def _queries_for(objects: Objects) -> int:
    return ceil(objects.spare * objects.most / STEP) * STEP


def _tile_scale(scale: tuple[int, int], tile: int) -> tuple[int, int]:
    """The size to which tiles are resized: the schedule's, but none is enlarged to more than twice its size."""
    side = min(*scale, LARGEST_SCALE * tile)
    return side, side


def describe_objects(config: Config) -> str:
    """One line on how many queries and how large images a run has, and for what objects."""
    queries, objects, tile = query_count(config), config.get("objects"), config.get("tiles")
    model, images = f"{queries} queries" if queries else "no queries", describe_images(config)
    if tile:
        images = f"tiles of {tile} x {tile} pixels of the image, as {images}"
    if objects is None:
        return f"{model}, {images}"
    if objects.side is not None:
        images += f", in which a quarter of the objects are smaller than {objects.side:g} x {objects.side:g}"
    options = "--queries, --tiles and --image-size set others" if queries else "--tiles and --image-size set others"
    count = f"About {objects.per_image} objects a tile" if tile else f"Up to {objects.per_image} objects an image"
    return f"{count}: {model}; {images}; {options}"


def query_count(config: Config) -> int | None:
    """How many queries the config's model has; None: it has none."""
    key = detector_traits(config.model.type).queries
    return None if key is None else int(get_setting(config.model, key))


def set_queries(config: Config, number: int) -> None:
    """Set how many queries the config's model has, in place, and let it return as many objects.

    MMDetection's models fail if they are to return more of one class. A model without queries returns at least so many.
    """
    traits = detector_traits(config.model.type)
    if traits.queries is not None:
        config.merge_from_dict({f"model.{traits.queries}": number})
    if traits.detections is not None:
        detections = get_setting(config.model, traits.detections) or DETECTIONS
        if number > detections or (traits.queries is not None and number < detections):
            config.merge_from_dict({f"model.{traits.detections}": number})


def get_setting(node: Any, key: str) -> Any:
    """The value at `key.path` in a config's part; None where there is none."""
    for name in key.split("."):
        node = (node or {}).get(name)
    return node
