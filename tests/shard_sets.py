"""What tests ask of shard sets."""

from pathlib import Path

from stage1_proposals.shards import ImageRecord, ShardReader, ShardSet


def ignore(_: int) -> None:
    pass


def hashes(directory: Path) -> list[str]:
    return [shard["content_sha256"] for shard in ShardSet.open(directory).shards]


def shard_files(directory: Path) -> list[Path]:
    return sorted(directory.glob("*.h5"))


def read_all(directory: Path) -> list[ImageRecord]:
    readers = [ShardReader(path) for path in ShardSet.open(directory).shard_paths]
    return [reader.read(row) for reader in readers for row in range(len(reader))]


def failures(directory: Path) -> dict[str, str]:
    return dict(failure for path in ShardSet.open(directory).shard_paths for failure in ShardReader(path).failures())
