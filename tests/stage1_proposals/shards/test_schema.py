"""The format itself: text, columns, content hash."""

import hashlib
import os
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stage1_proposals.common.files import decode_text, encode_text
from stage1_proposals.shards.schema import (
    COLUMNS,
    ImageRecord,
    content_sha256,
    shard_file_name,
    to_columns,
)

Contents = tuple[list[ImageRecord], list[tuple[str, str]], int]


@given(st.binary(max_size=30))
def test_any_file_name_survives_as_text(data: bytes) -> None:
    assert encode_text(decode_text(data)) == data
    assert decode_text(data) == os.fsdecode(data)


def test_shard_files_sort_in_order() -> None:
    assert shard_file_name(3, 124) == "shard-00003-of-00124.h5"
    assert shard_file_name(9, 100) < shard_file_name(10, 100)


@settings(deadline=None, max_examples=25)
@given(data=st.data())
def test_columns_have_the_types_and_dimensions_of_the_schema(contents: Any, data: st.DataObject) -> None:
    columns = to_columns(*data.draw(contents))
    assert list(columns) == list(COLUMNS)
    for name, column in COLUMNS.items():
        values = columns[name]
        if column.dtype is None:
            assert isinstance(values, list)
        else:
            assert (values.dtype.str, values.ndim) == (column.dtype, column.ndim)  # type: ignore[union-attr]


def test_offsets_cut_the_columns_into_images_and_masks(some_contents: Contents) -> None:
    columns = to_columns(*some_contents)
    assert np.asarray(columns["images/proposals_begin"]).tolist() == [0, 3, 3, 5]
    begin, rle = np.asarray(columns["proposals/rle_begin"]), np.asarray(columns["proposals/rle"])
    masks = [counts for record in some_contents[0] for counts in record.rle]
    assert [rle[begin[r] : begin[r + 1]].tobytes() for r in range(5)] == masks


@pytest.mark.parametrize("cluster", [None, np.array([5, 6, 7], np.int32)])
def test_one_proposal_alone_keeps_all_that_is_its(some_contents: Contents, cluster: Any) -> None:
    record = replace(some_contents[0][0], cluster=cluster)
    alone = record.only(1)
    assert len(alone) == 1
    assert np.array_equal(alone.masks()[0], record.masks()[1])
    for name in ("bbox", "score", "area", "seed", "feature"):
        assert np.array_equal(getattr(alone, name), getattr(record, name)[1:2])
    assert (alone.cluster is None) if cluster is None else alone.cluster.tolist() == [6]  # type: ignore[union-attr]
    assert (alone.image_id, alone.height) == (record.image_id, record.height)


def test_an_empty_shard_has_empty_columns_of_the_right_width() -> None:
    columns = to_columns([], [], 7)
    assert np.asarray(columns["proposals/feature"]).shape == (0, 7)
    assert np.asarray(columns["images/proposals_begin"]).tolist() == [0]


def change(values: Any) -> Any:
    if isinstance(values, list):
        return [*values[:-1], values[-1] + "x"]
    changed = values.copy()
    changed.flat[-1] = changed.flat[-1] + 1
    return changed


@pytest.mark.parametrize("name", COLUMNS)
def test_the_content_hash_sees_a_change_in_any_column(some_contents: Contents, name: str) -> None:
    columns = to_columns(*some_contents)
    changed = {**columns, name: change(columns[name])}
    assert content_sha256(changed) != content_sha256(columns) == content_sha256(dict(columns))


def test_the_content_hash_sees_where_one_text_ends_and_the_next_begins(some_contents: Contents) -> None:
    columns = to_columns(*some_contents)
    one, other = ({**columns, "failures/file_name": names} for names in (["ab", "c"], ["a", "bc"]))
    assert content_sha256(one) != content_sha256(other)


def test_the_content_hash_is_the_documented_one() -> None:
    """Of an empty shard with D = 2, from docs/shards.md alone."""
    text = (
        b"images/id <i8 0\nimages/file_name utf-8 0\nimages/height <i4 0\nimages/width <i4 0\n"
        b"images/proposals_begin <i8 1\n" + bytes(8) + b"proposals/bbox <f4 0x4\nproposals/score <f4 0\n"
        b"proposals/area <i8 0\nproposals/seed <f4 0x2\nproposals/feature <f2 0x2\n"
        b"proposals/rle_begin <i8 1\n" + bytes(8) + b"proposals/rle |u1 0\n"
        b"failures/file_name utf-8 1\n" + bytes([1, 0, 0, 0, 0, 0, 0, 0]) + b"a"
        b"failures/error utf-8 1\n" + bytes([2, 0, 0, 0, 0, 0, 0, 0]) + "ü".encode()
    )
    assert content_sha256(to_columns([], [("a", "ü")], 2)) == hashlib.sha256(text).hexdigest()
