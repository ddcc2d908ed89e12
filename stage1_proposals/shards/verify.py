"""Verifying a shard: its bytes against their checksums and hashes, its columns against each other."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from stage1_proposals.common.masks import mask_boxes
from stage1_proposals.shards.manifest import ShardEntry
from stage1_proposals.shards.reader import ShardReader, check_attributes, check_text_heaps, read_columns
from stage1_proposals.shards.schema import (
    CLUSTER,
    COLUMNS,
    OPTIONAL_COLUMNS,
    ROOT_ATTRIBUTES,
    Columns,
    ShardError,
    content_sha256,
)
from stage1_proposals.shards.shard_set import ShardSet


def _are_offsets(begin: np.ndarray, rows: int, end: int) -> bool:
    """Whether `begin` cuts [0, end) into as many ranges as there are rows."""
    return len(begin) == rows + 1 and begin[0] == 0 and begin[-1] == end and bool((np.diff(begin) >= 0).all())


def _column_problem(columns: Columns) -> str | None:
    """The first fault in the columns' types, lengths or offsets; None if there is none."""
    for name, column in COLUMNS.items():
        values = columns[name]
        if column.dtype is not None and (values.dtype.str != column.dtype or values.ndim != column.ndim):  # type: ignore[union-attr]
            return f"{name} is {values.dtype.str} with {values.ndim} dimensions"  # type: ignore[union-attr]
    length = {name: len(values) for name, values in columns.items()}
    images, proposals = length["images/id"], length["proposals/score"]
    for group, rows, offsets in (("images", images, "proposals_begin"), ("proposals", proposals, "rle_begin")):
        for name in COLUMNS:
            if name.startswith(group) and name not in (f"{group}/{offsets}", "proposals/rle") and length[name] != rows:
                return f"{name} has {length[name]} rows, not {rows}"
    if length["failures/file_name"] != length["failures/error"]:
        return "failures/file_name and failures/error differ in length"
    if not _are_offsets(np.asarray(columns["images/proposals_begin"]), images, proposals):
        return "images/proposals_begin does not partition the proposals"
    if not _are_offsets(np.asarray(columns["proposals/rle_begin"]), proposals, length["proposals/rle"]):
        return "proposals/rle_begin does not partition the mask bytes"
    return None


def _cluster_problem(reader: ShardReader, proposals: int) -> str | None:
    """The first fault in the cluster column, if the shard has one; reading it checks its checksums."""
    clusters = reader.clusters
    if clusters is None:
        return None
    values, column = reader.column(CLUSTER), OPTIONAL_COLUMNS[CLUSTER]
    if values.dtype.str != column.dtype or values.ndim != column.ndim:
        return f"{CLUSTER} is {values.dtype.str} with {values.ndim} dimensions"
    if len(values) != proposals:
        return f"{CLUSTER} has {len(values)} rows, not {proposals}"
    if proposals and not 0 <= values.min() <= values.max() < clusters.classes:
        return f"{CLUSTER} has values outside 0 to {clusters.classes - 1}"
    return None


def _mask_problem(reader: ShardReader) -> str | None:
    """The first mask that does not decode to the area and box stored with it, or score or feature not finite."""
    for index in range(len(reader)):
        record = reader.read(index)
        where = f"image {record.image_id} ({record.file_name})"
        try:
            masks = record.masks()
        except ValueError as error:
            return f"{where}: a mask does not decode ({error})"
        if not (masks.sum((1, 2), dtype=np.int64) == record.area).all():
            return f"{where}: a mask's area is not the one stored"
        if not np.array_equal(mask_boxes(record.coco_rle()), record.bbox):
            return f"{where}: a mask's box is not the one stored"
        if not (np.isfinite(record.score).all() and np.isfinite(record.feature).all()):
            return f"{where}: a score or feature is not finite"
    return None


def verify_shard(path: str | Path, *, decode_masks: bool = True) -> ShardEntry:
    """Check all of a shard: HDF5 checksums, types, offsets, hashes, clusters and masks.

    Args:
        decode_masks: whether to decode every mask and compare it with its area and box.

    Returns:
        The shard's entry in the manifest.

    Raises:
        ShardError: anything is wrong; the message names the file and the first fault.
    """
    path = Path(path)
    reader = ShardReader(path)
    try:
        file = reader.file
        check_text_heaps(path)
        stored = reader.attributes["content_sha256"]
        columns = read_columns(file)
        problem = _column_problem(columns)
        if problem is None and content_sha256(columns) != stored:
            problem = "the columns do not have the content hash stored with them"
        if problem is None:
            check_attributes(file, ROOT_ATTRIBUTES)
            problem = _cluster_problem(reader, len(columns["proposals/score"]))
        if problem is None and decode_masks:
            problem = _mask_problem(reader)
    except ShardError:
        raise
    except (OSError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise ShardError(f"{path}: damaged ({error}); run `make proposals` again to rebuild it") from error
    finally:
        reader.close()
    if problem:
        raise ShardError(f"{path}: {problem}; run `make proposals` again to rebuild it")
    return ShardEntry(
        file=path.name,
        images=len(columns["images/id"]),
        proposals=len(columns["proposals/score"]),
        failures=len(columns["failures/error"]),
        content_sha256=stored,
    )


def verify_set(shards: ShardSet, progress: Callable[[int], None] = lambda _: None) -> None:
    """Verify every shard of a set against its checksums and the manifest.

    Args:
        progress: called with numbers of shards verified.

    Raises:
        ShardError: naming all damaged shards.
    """
    faults = []
    for entry, path in zip(shards.entries, shards.shard_paths, strict=True):
        try:
            if verify_shard(path) != entry:
                faults.append(f"{path}: valid, but its hash differs from the manifest; run `make proposals` again")
        except ShardError as error:
            faults.append(str(error))
        progress(1)
    if faults:
        raise ShardError(f"{len(faults)} of {len(shards.entries)} shards are damaged: {'; '.join(faults)}")
