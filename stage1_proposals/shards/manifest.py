"""The manifest of a shard set as typed records: what was requested, and what each shard holds."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from functools import cache
from pathlib import Path
from types import UnionType
from typing import Any, Self, get_origin, get_type_hints

from stage1_proposals.common.files import write_json
from stage1_proposals.shards.schema import FORMAT, VERSION, ShardError

MANIFEST = "manifest.json"
REWRITE = "delete it, and the same `make proposals` rewrites it from the shards"
# These settings are paths. Where the hash of the file's content stands beside them, the path itself does not matter.
HASHED_FILES = ("weights", "file", "checkpoint")


_types = cache(get_type_hints)


class Record:
    """Base of dataclasses that read themselves from JSON, check the types of their fields, and write themselves."""

    @classmethod
    def from_json(cls, value: Any, name: str) -> Self:
        """Build the record from parsed JSON.

        Args:
            name: what the record is called in error messages.

        Raises:
            ShardError: a field is missing or has the wrong type.
        """
        if not isinstance(value, dict):
            raise ShardError(f"`{name}` must be a JSON object")
        types = _types(cls)  # type: ignore[arg-type]  # mypy does not take type[Self] as hashable
        values: dict[str, Any] = {}
        for key in (item.name for item in fields(cls) if item.name != "unknown"):  # type: ignore[arg-type]
            if key not in value:
                if hasattr(cls, key):  # it has a default
                    continue
                raise ShardError(f"`{name}.{key}` is missing")
            expected = types[key]
            if isinstance(expected, type) and issubclass(expected, Record):
                values[key] = expected.from_json(value[key], f"{name}.{key}")
            elif isinstance(value[key], expected if isinstance(expected, type | UnionType) else get_origin(expected)):
                values[key] = value[key]
            else:
                raise ShardError(f"`{name}.{key}` has the wrong type, {type(value[key]).__name__}")
        if "unknown" in types:
            values["unknown"] = {key: item for key, item in value.items() if key not in types}
        return cls(**values)

    def to_json(self) -> dict[str, Any]:
        """The record as a JSON-serialisable dict."""
        known = {item.name: getattr(self, item.name) for item in fields(self)}  # type: ignore[arg-type]
        unknown = known.pop("unknown", {})
        return {key: item.to_json() if isinstance(item, Record) else item for key, item in known.items()} | unknown


@dataclass(frozen=True)
class ShardEntry(Record):
    """One shard's line in the manifest.

    Attributes:
        file: name of the shard's file.
        images, proposals, failures: how many it holds.
        content_sha256: hash of its columns, see `schema.content_sha256`.
    """

    file: str
    images: int
    proposals: int
    failures: int
    content_sha256: str


@dataclass(frozen=True)
class BackboneRecord(Record):
    """The backbone that a shard set's seed features come from.

    Attributes:
        name: in the catalogue, or timm's name.
        weights: path of the checkpoint.
        sha256: hash of the checkpoint.
        stride: pixels per cell of the feature map.
        feature_dim: D, length of a seed feature.
        precision: `float32` or `bfloat16`.
        unknown: keys of newer versions, kept as they are.
    """

    name: str
    weights: str | None
    sha256: str
    stride: int
    feature_dim: int
    precision: str = "float32"
    unknown: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class ClusterRecord(Record):
    """How a set's clusters were made; beside the column of clusters and beside the centroids, not in the manifest.

    Attributes:
        classes: their number.
        method: name of the algorithm.
        seed: of the sample and of the algorithm.
        iterations: of k-means.
        sample: number of proposals that the centroids were computed from.
        content_sha256: hash of the shard set's content.
        centroids_sha256: hash of the centroids, little-endian float32.
        unknown: keys of newer versions, kept as they are.
    """

    classes: int
    method: str | None = None
    seed: int | None = None
    iterations: int | None = None
    sample: int | None = None
    content_sha256: str | None = None
    centroids_sha256: str | None = None
    unknown: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """As `Record.to_json`, without what is not known."""
        return {key: value for key, value in super().to_json().items() if value is not None}


@dataclass(frozen=True)
class Request(Record):
    """What a shard set is to hold: which images, and how proposals are made of them.

    Attributes:
        image_root: absolute path of the images.
        image_count: number of images.
        image_list_sha256: hash of the image list.
        images_per_shard, shard_count: how the images are cut into shards.
        generator: the proposal generator's `name` and settings, with the input size (`short_side`, `long_side`).
        backbone: where the features come from.
        unknown: keys of newer versions, kept as they are.
    """

    image_root: str
    image_count: int
    image_list_sha256: str
    images_per_shard: int
    shard_count: int
    generator: Mapping[str, Any]
    backbone: BackboneRecord
    unknown: Mapping[str, Any] = field(default_factory=dict)

    def differences(self, other: "Request") -> dict[str, tuple[Any, Any]]:
        """Where two requests differ: dotted key -> (value here, value in `other`); empty if equal.

        Paths of files do not count where the hash of the file's content does.
        """
        own, others = _flatten(self.to_json()), _flatten(other.to_json())
        return {
            key: (own.get(key), others.get(key))
            for key in sorted(own.keys() | others.keys())
            if own.get(key) != others.get(key)
        }


def _flatten(record: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings by dotted key, values as JSON gives them back; paths of hashed files are left out."""
    flat: dict[str, Any] = {}
    for key, value in json.loads(json.dumps(record)).items():
        if isinstance(value, dict):
            flat |= _flatten(value, f"{prefix}{key}.")
        elif not (key in HASHED_FILES and "sha256" in record):
            flat[prefix + key] = value
    return flat


@dataclass(frozen=True)
class Manifest:
    """What was requested and, once the set is complete, what each shard holds.

    Attributes:
        request: what was requested.
        entries: one per shard, in order; None while the set is unfinished.
    """

    request: Request
    entries: tuple[ShardEntry, ...] | None

    @classmethod
    def read(cls, directory: str | Path) -> "Manifest | None":
        """Read the manifest of a directory; None when there is none.

        Raises:
            ShardError: it cannot be read, is damaged, or is not a manifest that this version reads.
        """
        path = Path(directory) / MANIFEST
        try:
            document = json.loads(path.read_text(encoding="utf-8"))
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise ShardError(f"{path}: cannot be read ({error.strerror})") from error
        except (ValueError, RecursionError) as error:
            raise ShardError(f"{path}: not JSON ({error}); {REWRITE}") from error
        if not isinstance(document, dict) or document.get("format") != FORMAT:
            raise ShardError(f"{path}: not the manifest of a shard set")
        if not {"version", "request", "shards"} <= set(document):
            raise ShardError(f"{path}: lacks its version, request or shards")
        version, shards = document["version"], document["shards"]
        if isinstance(version, int) and version > VERSION:
            raise ShardError(f"{path}: version {version} is newer than {VERSION}; update this software")
        if not isinstance(version, int) or not isinstance(shards, list | None):
            raise ShardError(f"{path}: damaged, `version` or `shards` has the wrong type; {REWRITE}")
        try:
            request = Request.from_json(document["request"], "request")
            entries = [ShardEntry.from_json(shard, f"shards[{row}]") for row, shard in enumerate(shards or [])]
        except ShardError as error:
            raise ShardError(f"{path}: damaged, {error}; {REWRITE}") from error
        return cls(request, None if shards is None else tuple(entries))

    def write(self, directory: Path) -> None:
        """Write the manifest of a directory atomically.

        Raises:
            OSError: the disk is full or read-only.
        """
        shards = None if self.entries is None else [entry.to_json() for entry in self.entries]
        document = {"format": FORMAT, "version": VERSION, "request": self.request.to_json(), "shards": shards}
        write_json(directory / MANIFEST, document)
