"""A shard set: a directory of shards and the manifest that says what was asked for and what came of it."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stage1_proposals.common.files import write_json
from stage1_proposals.shards.reader import ShardReader, read_attribute
from stage1_proposals.shards.schema import FORMAT, VERSION, ImageRecord, ShardError, shard_file_name

MANIFEST = "manifest.json"
# What a manifest must have, and of which types; damage may leave it JSON all the same.
REQUEST = {"image_root": str, "shard_count": int, "backbone": dict}
ROW = {"file": str, "images": int, "proposals": int, "failures": int, "content_sha256": str}
WRITE_ANEW = "delete it, and the same `make proposals` writes it anew from the shards"


def _has(value: Any, types: Mapping[str, type]) -> bool:
    return isinstance(value, dict) and all(isinstance(value.get(key), types[key]) for key in types)


def read_manifest(directory: str | Path) -> dict[str, Any] | None:
    """The manifest of a directory, or None when there is none.

    Raises:
        ShardError: it cannot be read, is damaged, or is not a manifest this version reads.
    """
    path = Path(directory) / MANIFEST
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise ShardError(f"{path}: cannot be read ({error.strerror})") from error
    except (ValueError, RecursionError) as error:
        raise ShardError(f"{path}: not JSON ({error}); {WRITE_ANEW}") from error
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise ShardError(f"{path}: not the manifest of a shard set")
    if not {"version", "request", "shards"} <= set(manifest):
        raise ShardError(f"{path}: lacks its version, request or shards")
    version, request, rows = manifest["version"], manifest["request"], manifest["shards"]
    if isinstance(version, int) and version > VERSION:
        raise ShardError(f"{path}: version {version} is newer than {VERSION}; update this software")
    sound_rows = rows is None or (isinstance(rows, list) and all(_has(row, ROW) for row in rows))
    if not (isinstance(version, int) and _has(request, REQUEST) and sound_rows):
        raise ShardError(f"{path}: damaged; {WRITE_ANEW}")
    return manifest


def write_manifest(directory: Path, request: dict[str, Any], shards: list[dict[str, Any]] | None) -> None:
    """Write what was asked for and, once the set is whole, each shard's counts and content hash."""
    write_json(directory / MANIFEST, {"format": FORMAT, "version": VERSION, "request": request, "shards": shards})


@dataclass(frozen=True)
class ShardSet:
    """A finished shard set, known from its manifest alone: no shard is opened, nothing per image is held.

    Attributes:
        directory: where the shards are.
        request: what was asked for (generator, parameters, backbone, images, images per shard).
        shards: per shard `file`, `images`, `proposals`, `failures`, `content_sha256`.
    """

    directory: Path
    request: dict[str, Any]
    shards: tuple[dict[str, Any], ...]

    @classmethod
    def open(cls, directory: str | Path) -> "ShardSet":
        """Read the manifest and check that every shard it names is there.

        Raises:
            ShardError: no shard set, an unfinished one, or one with missing shards.
        """
        directory = Path(directory)
        manifest = read_manifest(directory)
        if manifest is None:
            raise ShardError(
                f"{directory}: no shard set here (no {MANIFEST}); make one with `make proposals SHARDS={directory}`"
            )
        if manifest["shards"] is None:
            count = manifest["request"]["shard_count"]
            done = sum((directory / shard_file_name(index, count)).exists() for index in range(count))
            raise ShardError(f"{directory}: unfinished, {done} of {count} shards; run the same `make proposals` again")
        missing = [shard["file"] for shard in manifest["shards"] if not (directory / shard["file"]).exists()]
        if missing:
            raise ShardError(
                f"{directory}: {len(missing)} shards are missing ({missing[0]} ...); run `make proposals` again"
            )
        return cls(directory, manifest["request"], tuple(manifest["shards"]))

    @property
    def shard_paths(self) -> list[Path]:
        return [self.shard_path(index) for index in range(len(self.shards))]

    def shard_path(self, index: int) -> Path:
        return self.directory / self.shards[index]["file"]

    @property
    def image_counts(self) -> list[int]:
        """Images per shard, failures not counted."""
        return [shard["images"] for shard in self.shards]

    @property
    def image_count(self) -> int:
        return sum(self.image_counts)

    @property
    def content_sha256(self) -> str:
        """Hash over the shards' content hashes, in order."""
        return hashlib.sha256("".join(shard["content_sha256"] for shard in self.shards).encode()).hexdigest()

    @cached_property
    def _ends(self) -> NDArray[np.int64]:
        return np.cumsum(self.image_counts, dtype=np.int64)

    def reader(self, index: int) -> ShardReader:
        """A reader of one shard, opened and found to be the one that the manifest names.

        Raises:
            ShardError: it has gone, is damaged, or was exchanged for another since the manifest was read.
        """
        path = self.shard_path(index)
        if not path.exists():
            raise ShardError(f"{path}: has gone; put it back, or run the same `make proposals` again")
        reader = ShardReader(path)
        if read_attribute(reader.file, "content_sha256") != self.shards[index]["content_sha256"]:
            reader.close()
            raise ShardError(
                f"{path}: holds other pseudo labels than {MANIFEST} said when it was read; put the former shard back, "
                f"or train on the new ones in another work directory"
            )
        return reader

    def readers(self) -> Iterator[ShardReader]:
        """A reader of every shard, in order, one open at a time: each is closed when the next is asked for."""
        for path in self.shard_paths:
            with closing(ShardReader(path)) as reader:
                yield reader

    def records(self) -> Iterator[ImageRecord]:
        """Every record of the set, in order, one in memory at a time.

        Raises:
            ShardError: a shard is damaged.
        """
        for reader in self.readers():
            yield from reader.records()

    def locate(self, position: int) -> tuple[int, int]:
        """The (shard, row in that shard) of the set's image number `position`."""
        shard = int(np.searchsorted(self._ends, position, side="right"))
        return shard, position - (int(self._ends[shard - 1]) if shard else 0)

    def clusters(self) -> dict[str, Any]:
        """How the set's clusters were made; `classes` is their number. Opens every shard for a moment.

        Raises:
            ShardError: some shards have none, or others.
        """
        found = [reader.clusters for reader in self.readers()]
        there = [clusters for clusters in found if clusters is not None]
        if not there:
            raise ShardError(f"{self.directory}: no clusters; `make cluster SHARDS={self.directory}` makes them")
        same = sum(clusters == there[0] for clusters in there)
        if same < len(found):
            raise ShardError(
                f"{self.directory}: clusters unfinished, {same} of {len(found)} shards have them; "
                f"run the same `make cluster` again"
            )
        return there[0]

    @property
    def image_root(self) -> str:
        return str(self.request["image_root"])

    @property
    def backbone(self) -> dict[str, Any]:
        """name, weights, sha256, stride, feature_dim of the backbone that made the seed features."""
        return dict(self.request["backbone"])

    @property
    def feature_dim(self) -> int:
        """D, the length of a seed feature."""
        return int(self.backbone["feature_dim"])
