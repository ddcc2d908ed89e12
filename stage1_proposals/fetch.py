"""Bringing a shard set from a URL to a directory, where all that reads shards needs it."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from stage1_proposals.errors import UserError
from stage1_proposals.shards import ShardError, verify_shard, whole_file
from stage1_proposals.store import LocalStore, Store, store_manifest, stored_manifest


def is_sound(path: Path, row: dict[str, Any]) -> bool:
    """Whether an undamaged shard lies there, the one that its line of the manifest names."""
    try:
        return verify_shard(path, decode_masks=False) == row
    except ShardError:
        return False


def fetch(source: Store, target: LocalStore, progress: Callable[[int], None]) -> None:
    """Copy a finished set to a directory, each shard verified; run again, it goes on.

    Args:
        progress: called with numbers of shards done; those already there count too.

    Raises:
        ShardError: there is no finished set, or one of its shards is missing or damaged.
        UserError: the directory holds another set, is in use or cannot be written.
    """
    manifest = stored_manifest(source)
    if manifest is None or manifest["shards"] is None:
        found = "no shard set here" if manifest is None else "unfinished"
        raise ShardError(f"{source}: {found}; `make proposals SHARDS={source}` makes or finishes it")
    with target.sole_user():
        there = stored_manifest(target)
        if there is not None and there["request"] != manifest["request"]:
            raise UserError(f"{target} holds another shard set than {source}; choose another directory")
        store_manifest(target, manifest["request"], None)
        target.remove_leftovers()
        for row in manifest["shards"]:
            if not is_sound(target.directory / row["file"], row):
                with source.reading(row["file"]) as copy:
                    if not is_sound(copy, row):
                        raise ShardError(f"{copy}: missing, damaged or another; run the same `make proposals` again")
                    with target.writing(row["file"]) as path, whole_file(path) as scratch:
                        shutil.copyfile(copy, scratch)
            progress(1)
        store_manifest(target, manifest["request"], manifest["shards"])
