"""A shard set: a directory of shards, known from its manifest."""

import hashlib
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from stage1_proposals.shards.manifest import MANIFEST, BackboneRecord, ClusterRecord, Manifest, Request, ShardEntry
from stage1_proposals.shards.reader import ShardReader, read_attribute
from stage1_proposals.shards.schema import ImageRecord, ShardError, shard_file_name


@dataclass(frozen=True)
class ShardSet:
    """A finished shard set, known from its manifest alone: no shard is opened, nothing per image is held.

    Attributes:
        directory: where the shards are.
        request: what was requested (images, generator, backbone, images per shard).
        entries: what each shard holds, in order.
    """

    directory: Path
    request: Request
    entries: tuple[ShardEntry, ...]

    @classmethod
    def open(cls, directory: str | Path) -> "ShardSet":
        """Read the manifest and check that every shard it names exists.

        Raises:
            ShardError: no shard set, an unfinished one, or one with missing shards.
        """
        directory = Path(directory)
        manifest = Manifest.read(directory)
        if manifest is None:
            raise ShardError(
                f"{directory}: no shard set here (no {MANIFEST}); make one with `make proposals SHARDS={directory}`"
            )
        if manifest.entries is None:
            count = manifest.request.shard_count
            done = sum((directory / shard_file_name(index, count)).exists() for index in range(count))
            raise ShardError(f"{directory}: unfinished, {done} of {count} shards; run the same `make proposals` again")
        missing = [entry.file for entry in manifest.entries if not (directory / entry.file).exists()]
        if missing:
            raise ShardError(
                f"{directory}: {len(missing)} shards are missing ({missing[0]} ...); run `make proposals` again"
            )
        return cls(directory, manifest.request, manifest.entries)

    @property
    def shard_paths(self) -> list[Path]:
        """Path of each shard, in order."""
        return [self.directory / entry.file for entry in self.entries]

    @property
    def image_counts(self) -> list[int]:
        """Images per shard, failures not counted."""
        return [entry.images for entry in self.entries]

    @property
    def image_count(self) -> int:
        """Images of the set, failures not counted."""
        return sum(self.image_counts)

    @property
    def proposal_count(self) -> int:
        """Proposals of the set."""
        return sum(entry.proposals for entry in self.entries)

    @property
    def content_sha256(self) -> str:
        """Hash over the shards' content hashes, in order."""
        return hashlib.sha256("".join(entry.content_sha256 for entry in self.entries).encode()).hexdigest()

    @property
    def image_root(self) -> str:
        """Folder of the images when the set was made."""
        return self.request.image_root

    @property
    def backbone(self) -> BackboneRecord:
        """The backbone that made the seed features."""
        return self.request.backbone

    @property
    def feature_dim(self) -> int:
        """D, the length of a seed feature."""
        return self.request.backbone.feature_dim

    @cached_property
    def _ends(self) -> NDArray[np.int64]:
        return np.cumsum(self.image_counts, dtype=np.int64)

    def locate(self, position: int) -> tuple[int, int]:
        """The (shard, row in that shard) of the set's image number `position`."""
        shard = int(np.searchsorted(self._ends, position, side="right"))
        return shard, position - (int(self._ends[shard - 1]) if shard else 0)

    def shard_path(self, index: int) -> Path:
        """Path of one shard."""
        return self.directory / self.entries[index].file

    def reader(self, index: int) -> ShardReader:
        """A reader of one shard, after checking that it is the shard that the manifest names.

        Raises:
            ShardError: the shard is missing, damaged, or was replaced since the manifest was read.
        """
        path = self.shard_path(index)
        if not path.exists():
            raise ShardError(f"{path}: is missing; restore it, or run the same `make proposals` again")
        reader = ShardReader(path)
        if read_attribute(reader.file, "content_sha256") != self.entries[index].content_sha256:
            reader.close()
            raise ShardError(
                f"{path}: was replaced by another shard since {MANIFEST} was read; run the command again or, to "
                f"continue a training, restore the former shard or train on the new ones in another work directory"
            )
        return reader

    def readers(self) -> Iterator[ShardReader]:
        """A reader of every shard, in order, one open at a time: each is closed when the next is requested.

        Raises:
            ShardError: as `reader`.
        """
        for index in range(len(self.entries)):
            with closing(self.reader(index)) as reader:
                yield reader

    def records(self) -> Iterator[ImageRecord]:
        """Every record of the set, in order, one in memory at a time.

        Raises:
            ShardError: a shard is missing, damaged or was replaced.
        """
        for reader in self.readers():
            yield from reader.records()

    def clusters(self) -> ClusterRecord:
        """How the set's clusters were made. Opens every shard for a moment.

        Raises:
            ShardError: some shards have no clusters, or different ones.
        """
        per_shard = [reader.clusters for reader in self.readers()]
        clusters = next((clusters for clusters in per_shard if clusters is not None), None)
        if clusters is None:
            raise ShardError(f"{self.directory}: no clusters; `make cluster SHARDS={self.directory}` makes them")
        equal = per_shard.count(clusters)
        if equal < len(per_shard):
            raise ShardError(
                f"{self.directory}: clusters unfinished, {equal} of {len(per_shard)} shards have them; "
                f"run the same `make cluster` again"
            )
        return clusters
