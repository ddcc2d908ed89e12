"""What is asked for: everything that decides what the shards hold, and how two requests are compared."""

import json
from collections.abc import Set
from dataclasses import dataclass
from math import ceil
from typing import Any

from stage1_proposals.backbones.extractor import PRECISIONS, get_spec
from stage1_proposals.backbones.weights import locate_weights
from stage1_proposals.common.errors import UserError
from stage1_proposals.common.files import file_sha256
from stage1_proposals.generators.registry import ProposalGenerator
from stage1_proposals.images.listing import ImageList
from stage1_proposals.jobs.store import Store, stored_manifest

# Files whose hash stands beside them count by it, wherever they lie.
HASHED_FILES = ("weights", "file")


@dataclass(frozen=True)
class Recipe:
    """How images become proposals, and on what device.

    Attributes:
        generator: makes proposals from feature maps.
        backbone: a name of the catalogue, or timm's.
        weights: checkpoint file, or None for the catalogue's own.
        short_side, long_side: input size in pixels: shorter side, and the most for the longer one.
        batch_size: images per forward pass, at most.
        device: torch device.
        precision: of the backbone: `float32` or `bfloat16`.
    """

    generator: ProposalGenerator
    backbone: str
    weights: str | None
    short_side: int
    long_side: int
    batch_size: int
    device: str
    precision: str = "float32"

    def __post_init__(self) -> None:
        for name in ("short_side", "long_side", "batch_size"):
            check_positive(name, getattr(self, name))
        if self.precision not in PRECISIONS:
            raise UserError(f"precision {self.precision!r}: use {' or '.join(PRECISIONS)}")


@dataclass(frozen=True)
class ShardTask:
    """One shard's share of the images.

    Attributes:
        index: of the shard.
        names, ids: of its images, in order.
    """

    index: int
    names: tuple[str, ...]
    ids: tuple[int, ...]

    def without(self, done: Set[str]) -> "ShardTask":
        """The images that are not done."""
        left = [pair for pair in zip(self.names, self.ids, strict=True) if pair[0] not in done]
        return ShardTask(self.index, tuple(name for name, _ in left), tuple(image_id for _, image_id in left))


@dataclass(frozen=True)
class Job:
    """Which images, made into proposals how, cut into shards of what size: all that decides what the shards hold.

    Attributes:
        images: the images, in order.
        recipe: how they become proposals.
        images_per_shard: images per shard.
    """

    images: ImageList
    recipe: Recipe
    images_per_shard: int

    def __post_init__(self) -> None:
        check_positive("images_per_shard", self.images_per_shard)

    @property
    def shard_count(self) -> int:
        return ceil(len(self.images) / self.images_per_shard)

    def task(self, index: int) -> ShardTask:
        """The images that shard `index` covers."""
        first = index * self.images_per_shard
        covered = slice(first, first + self.images_per_shard)
        return ShardTask(index, self.images.names[covered], self.images.ids[covered])

    def request(self) -> dict[str, Any]:
        """What is asked for, JSON-ready; reads the weights to hash them."""
        recipe = self.recipe
        spec, path = get_spec(recipe.backbone), locate_weights(recipe.backbone, recipe.weights)
        return {
            "image_root": str(self.images.root),
            "image_count": len(self.images),
            "image_list_sha256": self.images.sha256(),
            "images_per_shard": self.images_per_shard,
            "shard_count": self.shard_count,
            "generator": {
                **recipe.generator.parameters(),
                "short_side": recipe.short_side,
                "long_side": recipe.long_side,
            },
            "backbone": {
                "name": recipe.backbone,
                "weights": str(path.resolve()),
                "sha256": file_sha256(path),
                "stride": spec.stride,
                "feature_dim": spec.feature_dim,
                "precision": recipe.precision,
            },
        }


def check_positive(name: str, value: object) -> None:
    """Refuse a value that is no positive whole number.

    Raises:
        UserError: it is none.
    """
    if not isinstance(value, int) or value < 1:
        raise UserError(f"{name} must be a positive whole number, not {value!r}")


def comparable(value: dict[str, Any]) -> dict[str, Any]:
    """A part of a request as JSON gives it back, without what does not change the outcome."""
    hashed = HASHED_FILES if "sha256" in value else ()
    return {key: item for key, item in json.loads(json.dumps(value)).items() if key not in hashed}


def _flatten(value: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, item in comparable(value).items():
        flat |= _flatten(item, f"{prefix}{key}.") if isinstance(item, dict) else {prefix + key: item}
    return flat


def check_same_request(store: Store, request: dict[str, Any]) -> None:
    """Refuse a store that holds the work of another request.

    Raises:
        UserError: naming every difference.
    """
    manifest = stored_manifest(store)
    if manifest is None:
        return
    there, asked = _flatten(manifest["request"]), _flatten(request)
    differences = [
        f"{key} is {there.get(key)!r} there, {asked.get(key)!r} asked for"
        for key in sorted(there | asked)
        if there.get(key) != asked.get(key)
    ]
    if differences:
        raise UserError(f"{store} holds other work: {'; '.join(differences)}. Choose another SHARDS directory")
