"""What a job is: which images become proposals, and how; two jobs with equal requests make equal shards."""

import re
from collections.abc import Set
from contextlib import suppress
from dataclasses import dataclass as plain_dataclass
from dataclasses import field, replace
from math import ceil, prod
from pathlib import Path
from statistics import fmean
from typing import Any

from pydantic import PositiveInt
from pydantic.dataclasses import dataclass

from stage1_proposals.backbones.extractor import PRECISIONS, fastest_precision, get_spec
from stage1_proposals.backbones.tiles import tile_size, tiles
from stage1_proposals.backbones.weights import locate_weights
from stage1_proposals.common.errors import UserError
from stage1_proposals.common.files import file_sha256
from stage1_proposals.common.settings import SETTINGS, build_settings
from stage1_proposals.generators.base import ChecksImages, ProposalGenerator
from stage1_proposals.generators.registry import build_generator, read_settings
from stage1_proposals.images.batching import input_size
from stage1_proposals.images.decode import ImageError, read_size
from stage1_proposals.images.listing import ImageList
from stage1_proposals.jobs.store import Store, stored_manifest
from stage1_proposals.shards import BackboneRecord, Manifest, Request

SHARDS = 64
SAMPLE = 16  # images whose sizes say what a job costs
SHARD_SIZES = (16, 1000)  # smaller ones cost more time to open than to read; larger ones, more to make again


@dataclass(frozen=True, config=SETTINGS)
class JobSettings:
    """Sizes that are the same for all generators.

    Attributes:
        images_per_shard: images per shard, except the last one; None: by the number of images (`default_shard_size`).
        batch_size: images per forward pass, at most.
        short_side: length to which the shorter side of an image is resized, in pixels.
        long_side: limit for the longer side, in pixels.
        feature_stride: join earlier feature maps with the last one, down to this many input pixels per cell.
        full_size: make no image smaller, except to `long_side`; `short_side` is then the least.
        tile: longest side of what the backbone gets at once, in pixels; larger inputs are cut into overlapping tiles.
    """

    images_per_shard: PositiveInt | None = None
    batch_size: PositiveInt = 8
    short_side: PositiveInt = 800
    long_side: PositiveInt = 1333
    feature_stride: PositiveInt | None = None
    full_size: bool = False
    tile: PositiveInt | None = None

    def override(self, **sizes: int | None) -> "JobSettings":
        """The settings with these sizes, where they are not None; a `short_side` alone keeps the proportions.

        With `full_size` it does not move `long_side`, which is a bound on memory then.
        """
        given: dict[str, Any] = {name: size for name, size in sizes.items() if size is not None}
        if "short_side" in given and "long_side" not in given and not self.full_size:
            given["long_side"] = round(given["short_side"] * self.long_side / self.short_side)
        return replace(self, **given)


def default_shard_size(images: int) -> int:
    """Images per shard, so that up to `SHARDS` workers share a small set: from 16 up to 1,000.

    It depends on the number of images alone, because shards must not depend on the machine that makes them.
    """
    return min(max(ceil(images / SHARDS), SHARD_SIZES[0]), SHARD_SIZES[1])


@plain_dataclass(frozen=True)
class Recipe:
    """How images become proposals, and on which device.

    Attributes:
        generator: makes proposals from feature maps.
        backbone: name in the catalogue, or timm's name.
        weights: checkpoint file, or None for the catalogue's own.
        device: torch device.
        precision: of the backbone, `float32` or `bfloat16`.
        settings: input size, batch size and shard size.
    """

    generator: ProposalGenerator
    backbone: str
    weights: str | None
    device: str
    precision: str = "float32"
    settings: JobSettings = field(default_factory=JobSettings)

    def __post_init__(self) -> None:
        if self.precision not in PRECISIONS:
            raise UserError(f"precision {self.precision!r}: use {' or '.join(PRECISIONS)}")


@plain_dataclass(frozen=True)
class ShardTask:
    """The images of one shard.

    Attributes:
        index: number of the shard.
        names, ids: of its images, in order.
    """

    index: int
    names: tuple[str, ...]
    ids: tuple[int, ...]

    def without(self, names: Set[str]) -> "ShardTask":
        """The task with the images of these names left out."""
        left = [row for row, name in enumerate(self.names) if name not in names]
        return ShardTask(self.index, tuple(self.names[row] for row in left), tuple(self.ids[row] for row in left))


@plain_dataclass(frozen=True)
class Job:
    """Images and the recipe for them: everything that decides what the shards hold.

    Attributes:
        images: the images, in order.
        recipe: how they become proposals.
    """

    images: ImageList
    recipe: Recipe

    @property
    def images_per_shard(self) -> int:
        """Images per shard, except the last one."""
        return self.recipe.settings.images_per_shard or default_shard_size(len(self.images))

    @property
    def shard_count(self) -> int:
        """Number of shards."""
        return ceil(len(self.images) / self.images_per_shard)

    def continuing(self, manifest: Manifest | None) -> "Job":
        """The job with the stored set's images per shard, unless the settings have a number of their own.

        So a set is continued that was made with another default.
        """
        settings = self.recipe.settings
        if manifest is None or settings.images_per_shard is not None:
            return self
        stored = replace(settings, images_per_shard=manifest.request.images_per_shard)
        return replace(self, recipe=replace(self.recipe, settings=stored))

    def input_pixels(self) -> int | None:
        """Pixels of an image that the backbone computes, tiles' overlaps counted twice; the mean of a few images.

        None if none of these can be read.
        """
        settings, pixels = self.recipe.settings, []
        step = get_spec(self.recipe.backbone, settings.feature_stride).input_step
        for name in self.images.names[:: ceil(len(self.images) / SAMPLE)]:
            with suppress(ImageError):
                size = read_size(Path(self.images.root, name))
                given = input_size(*size, settings.short_side, settings.long_side, step, settings.full_size)
                count = len(list(tiles(given, settings.tile, step)))
                pixels.append(count * prod(tile_size(given, settings.tile, step)))
        return round(fmean(pixels)) if pixels else None

    def task(self, index: int) -> ShardTask:
        """The images of shard `index`."""
        first = index * self.images_per_shard
        rows = slice(first, first + self.images_per_shard)
        return ShardTask(index, self.images.names[rows], self.images.ids[rows])

    def request(self) -> Request:
        """The job's request, as shards and manifest record it; reads the weights in order to hash them.

        Raises:
            UserError: the generator or the weights cannot be used, as imported masks of other images.
        """
        recipe, settings = self.recipe, self.recipe.settings
        if isinstance(recipe.generator, ChecksImages):
            recipe.generator.check_images(dict(zip(self.images.names, self.images.ids, strict=True)))
        spec = get_spec(recipe.backbone, settings.feature_stride)
        weights = locate_weights(recipe.backbone, recipe.weights)
        return Request(
            image_root=str(self.images.root),
            image_count=len(self.images),
            image_list_sha256=self.images.sha256(),
            images_per_shard=self.images_per_shard,
            shard_count=self.shard_count,
            generator={
                **recipe.generator.parameters(),
                "short_side": settings.short_side,
                "long_side": settings.long_side,
                # Sets of before have none of these.
                **({"full_size": True} if settings.full_size else {}),
                **({"tile": settings.tile} if settings.tile else {}),
                # Sets of before did not compensate it, and can be continued where there is none.
                **({"cell_offset": spec.offset} if spec.offset else {}),
            },
            backbone=BackboneRecord(
                name=recipe.backbone,
                weights=str(weights.resolve()),
                sha256=file_sha256(weights),
                stride=spec.stride,
                feature_dim=spec.feature_dim,
                precision=recipe.precision,
            ),
        )


def job_of(images: ImageList, generator: str, backbone: str, device: str, short_side: int) -> Job:
    """A job with the settings of a generator's config, and some of them changed.

    Args:
        generator: `NAME` or `NAME,KEY=VALUE,...`, as `make proposals` takes both; `objects=small` is its option.
        backbone: with the catalogue's weights.
        short_side: input size in pixels.

    Raises:
        UserError: unknown names or settings.
    """
    name, *changes = re.split(r",(?=\w+=)", generator)
    small = "objects=small"
    overrides = [change for change in changes if change != small]
    settings = read_settings(None, name, overrides, "small" if small in changes else "any")
    chosen = build_generator(settings.pop("generator"))
    sizes = build_settings(JobSettings, settings, f"config of {name}").override(short_side=short_side)
    return Job(images, Recipe(chosen, backbone, None, device, fastest_precision(device), sizes))


def check_same_request(store: Store, request: Request) -> None:
    """Refuse a store whose shards are of another request.

    Raises:
        UserError: naming every difference.
    """
    manifest = stored_manifest(store)
    differences = manifest.request.differences(request) if manifest else {}
    if differences:
        listed = "; ".join(f"{key} was {a!r}, requested {b!r}" for key, (a, b) in differences.items())
        hint = ""
        if differences.get("generator.name") == ("freemask", "saliency"):
            hint = ", or train on this set as it is: sets of the former generator `freemask` cannot be continued"
        elif "generator.sha256" in differences and manifest:
            former = manifest.request.generator.get("checkpoint")
            if former and former != request.generator.get("checkpoint"):
                hint = f", or go on with the checkpoint of before, if it is there: --checkpoint (CHECKPOINT=) {former}"
        raise UserError(f"{store} was made with other settings: {listed}. Choose another SHARDS directory{hint}")
