"""Fitting a config to the objects of its data: the number of queries to how many there are, image size to how small.

A query finds one object, so an image with more objects than queries cannot be segmented. An object smaller than a cell
of the mask predictions cannot be, either.
"""

import json
from collections import Counter
from contextlib import closing, suppress
from dataclasses import dataclass
from math import ceil
from typing import Any

import numpy as np
from mmengine.config import Config
from numpy.typing import NDArray

from stage1_proposals.common.errors import UserError
from stage1_proposals.shards import ShardSet
from stage2_training.config.annotation_files import annotation_file
from stage2_training.config.cpu import describe_images, image_scales
from stage2_training.saliency_prompt.detectors import detector_traits

# Queries: a quarter more than objects in all but the fullest hundredth of the images, in steps of 50.
SPARE, PERCENTILE, STEP = 1.25, 99, 50
# Images: at least three quarters of the objects have this side (root of their area) in pixels: a cell at stride 8.
LEAST_SIDE = 8.0
DETECTIONS = 100  # that a model returns where its config says nothing
SHARDS = 16  # of a set that are looked at, spread evenly
UNREADABLE = (OSError, ValueError, LookupError, TypeError, AttributeError)  # labels that are none
ENLARGEMENTS = (1.0, 1.25, 1.5, 1.75, 2.0)  # doubling the size takes four times the time


@dataclass(frozen=True)
class Objects:
    """The objects that a run trains on.

    Attributes:
        counts: of each image, int (I,).
        sides: root of each object's area in pixels of its image, float (O,).
        sizes: longer and shorter side of each object's image, (O, 2).
    """

    counts: NDArray[Any]
    sides: NDArray[Any]
    sizes: NDArray[Any]

    @property
    def most(self) -> int:
        """How many objects all but the fullest hundredth of the images have at most."""
        return ceil(np.percentile(self.counts, PERCENTILE)) if len(self.counts) else 0

    def small_side(self, scale: tuple[float, float]) -> float:
        """The side below which a quarter of the objects are, once images are resized to fit into `scale`."""
        if not len(self.sides):
            return float("inf")
        factors = (np.sort(scale)[::-1] / self.sizes).min(axis=1)
        return float(np.percentile(self.sides * factors, 25))


def labelled_objects(dataset: Any) -> Objects | None:
    """The objects of the training labels; None where the file cannot be read, which `check_annotations` reports."""
    with suppress(*UNREADABLE):
        images, objects = _read_labels(dataset)
        sizes = {each["id"]: (each["width"], each["height"]) for each in images}
        counts = np.asarray(list(Counter(each["image_id"] for each in objects).values()), int)
        sides = np.sqrt(np.asarray([each["area"] for each in objects], float))
        around = np.asarray([sizes[each["image_id"]] for each in objects], float).reshape(-1, 2)
        return Objects(counts, sides, -np.sort(-around, axis=1))
    return None


def images_with_objects(dataset: Any) -> dict[int, str]:
    """The images that have an object: their places in the training labels, and their names.

    Raises:
        UserError: the file cannot be read.
    """
    try:
        images, objects = _read_labels(dataset)
        ids = {each["image_id"] for each in objects}
        return {place: each["file_name"] for place, each in enumerate(images) if each["id"] in ids}
    except OSError as error:
        raise UserError(
            f"{annotation_file(dataset)}: cannot be read ({error.strerror}); `make data` makes it, or say where it is "
            f"with --data-root"
        ) from error
    except UNREADABLE as error:
        raise UserError(f"{annotation_file(dataset)}: is no COCO JSON of labelled images; correct the file") from error


def _read_labels(dataset: Any) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The images of a dataset's config, and their objects of its classes, without crowds."""
    content = json.loads(annotation_file(dataset).read_bytes())
    classes = {each["id"] for each in content["categories"] if each["name"] in dataset.metainfo["classes"]}
    places = dataset.get("indices")
    images = content["images"] if places is None else [content["images"][place] for place in places]
    ids = {each["id"] for each in images}
    objects = [
        each
        for each in content["annotations"]
        if each["category_id"] in classes and not each.get("iscrowd") and each["image_id"] in ids
    ]
    return images, objects


def proposed_objects(shards: ShardSet, most: int | None = None) -> Objects:
    """The proposals of a shard set, or of `SHARDS` of its shards: the start on a large set takes no longer.

    Args:
        shards: to train on.
        most: proposals of an image that are trained on; None: all.
    """
    counts, sides, sizes = [], [], []
    chosen = np.unique(np.linspace(0, len(shards.entries) - 1, SHARDS).round().astype(int))
    for index in chosen.tolist():
        with closing(shards.reader(index)) as reader:
            of_image = np.diff(reader.column("images/proposals_begin"))
            image_sizes = np.stack([reader.column("images/width"), reader.column("images/height")], axis=1)
            counts.append(of_image if most is None else of_image.clip(max=most))
            sides.append(np.sqrt(reader.column("proposals/area")))
            sizes.append(np.repeat(-np.sort(-image_sizes, axis=1), of_image, axis=0))
    return Objects(np.concatenate(counts), np.concatenate(sides), np.concatenate(sizes))


def fit_to_objects(config: Config, objects: Objects, queries: int | None = None, image_size: int | None = None) -> None:
    """Set the number of queries and the images' size, in place; never lower than the config has them.

    Args:
        config: of a run; gets `objects`, which `describe_objects` reads.
        objects: that it trains on.
        queries, image_size: given by the user, and kept.
    """
    if queries is None:
        set_queries(config, max(query_count(config) or 0, ceil(SPARE * objects.most / STEP) * STEP))
    side = None
    if scales := list(image_scales(config.train_dataloader.dataset)):
        width, height = max(scales, key=lambda scale: scale[0] * scale[1])
        if image_size is None:
            seen = [objects.small_side((width * factor, height * factor)) >= LEAST_SIDE for factor in ENLARGEMENTS]
            _enlarge(config, ENLARGEMENTS[seen.index(True) if True in seen else -1])
            width, height = max(image_scales(config.train_dataloader.dataset), key=lambda scale: scale[0] * scale[1])
        side = round(objects.small_side((width, height)), 1) if len(objects.sides) else None
    config.objects = {"per_image": objects.most, "side": side}


def describe_objects(config: Config) -> str:
    """One line on how many queries and how large images a run has, and for what objects."""
    queries, objects = query_count(config), config.get("objects")
    model, images = f"{queries} queries" if queries else "no queries", describe_images(config)
    if objects is None:
        return f"{model}, {images}"
    if objects.side is not None:
        images += f", in which a quarter of the objects are smaller than {objects.side:g} x {objects.side:g}"
    options = "--queries and --image-size set others" if queries else "--image-size sets another size"
    return f"Up to {objects.per_image} objects an image: {model}; {images}; {options}"


def query_count(config: Config) -> int | None:
    """How many queries the config's model has; None: it has none."""
    key = detector_traits(config.model.type).queries
    return None if key is None else int(_get(config.model, key))


def set_queries(config: Config, number: int) -> None:
    """Set how many queries the config's model has, in place, and let it return as many objects.

    MMDetection's models fail if they are to return more of one class. A model without queries returns at least so many.
    """
    traits = detector_traits(config.model.type)
    if traits.queries is not None:
        config.merge_from_dict({f"model.{traits.queries}": number})
    if traits.detections is not None:
        detections = _get(config.model, traits.detections) or DETECTIONS
        if number > detections or (traits.queries is not None and number < detections):
            config.merge_from_dict({f"model.{traits.detections}": number})


def _get(node: Any, key: str) -> Any:
    for name in key.split("."):
        node = (node or {}).get(name)
    return node


def _enlarge(config: Config, factor: float) -> None:
    def enlarged(scale: Any) -> Any:
        if isinstance(scale[0], list | tuple):
            return [enlarged(each) for each in scale]
        return tuple(round(side * factor) for side in scale)

    for part in ("train", "val", "test") if factor > 1 else ():
        for transform in config.get(f"{part}_dataloader", {}).get("dataset", {}).get("pipeline", ()):
            if isinstance(transform.get("scale"), list | tuple):
                transform["scale"] = enlarged(transform["scale"])
