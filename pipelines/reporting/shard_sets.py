"""A shard set as the report shows it."""

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from pipelines.reporting.notes import Notes
from pipelines.reporting.pictures import Album
from stage1_proposals.shards import ShardReader, ShardSet
from stage2_training.runs.work_dir import flatten

FAILURES_SHOWN = 20


@dataclass(frozen=True)
class Shards:
    """One shard set.

    Attributes:
        told: what it holds, as (what, how much).
        request: what was asked for, by dotted key.
        failures: images that could not be used and why, the first of them.
        sheet: its contact sheet as a `data:` address.
    """

    name: str
    told: list[tuple[str, str]]
    request: dict[str, Any]
    failures: list[tuple[str, str]]
    sheet: str | None


def read_shards(directory: Path, notes: Notes, album: Album) -> Shards | None:
    """The set in a directory; None, with a note, when its manifest cannot be read or shards are missing."""
    with notes.on(directory):
        shards = ShardSet.open(directory)
        count = shards.proposal_count
        failed = shards.failure_count
        size = sum(path.stat().st_size for path in shards.shard_paths)
        request = dict(flatten(shards.request.to_json()))
        told = [
            ("images", f"{shards.image_count:,}"),
            ("proposals", f"{count:,} ({count / max(1, shards.image_count):.1f} an image)"),
            ("images that failed", f"{failed:,}"),
            ("shards", f"{len(shards.entries)} ({size / 1e6:,.1f} MB)"),
            ("generator", str(request.get("generator.name", "?"))),
            ("backbone", str(shards.backbone.name)),
        ]
        failures: list[tuple[str, str]] = []
        with notes.on(directory):
            failures = list(islice(_failures(shards), FAILURES_SHOWN))
        return Shards(notes.shown(directory), told, request, failures, album.sheet(directory, shards))
    return None


def _failures(shards: ShardSet) -> Iterator[tuple[str, str]]:
    for entry, path in zip(shards.entries, shards.shard_paths, strict=True):
        if entry.failures:
            with closing(ShardReader(path)) as reader:
                yield from reader.failures()
