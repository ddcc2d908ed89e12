"""Verify finds every fault, and raises nothing but ShardError."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stage1_proposals.shards import ImageRecord, ShardEntry, ShardError, ShardReader, verify_shard
from stage1_proposals.shards.reader import read_columns
from stage1_proposals.shards.schema import ROOT_ATTRIBUTES, content_sha256
from tests.shard_sets import fix_attribute_lengths

Contents = tuple[list[ImageRecord], list[tuple[str, str]], int]


@settings(deadline=None, max_examples=20)
@given(data=st.data())
def test_every_shard_written_is_sound(
    tmp_path_factory: pytest.TempPathFactory, contents: Any, write: Callable[..., str], data: st.DataObject
) -> None:
    records, failures, dim = data.draw(contents)
    path = tmp_path_factory.mktemp("shards") / "a.h5"
    content = write(path, (records, failures, dim))
    assert verify_shard(path) == ShardEntry("a.h5", len(records), sum(map(len, records)), len(failures), content)


def test_the_hash_does_not_see_the_hdf5_layout(shard: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.h5"
    with h5py.File(shard) as source, h5py.File(other, "w") as target:
        for name, value in source.attrs.items():
            target.attrs[name] = value
        for name in list(read_columns(source)):
            target.create_dataset(name, data=source[name][...], dtype=source[name].dtype)
    assert verify_shard(other) == replace(verify_shard(shard), file="other.h5")


def read_all(path: Path) -> object:
    """Everything that a sound shard says: its content hash covers each column, and not the attributes."""
    entry, reader = verify_shard(path, decode_masks=False), ShardReader(path)
    try:
        return entry, reader.attributes
    finally:
        reader.close()


@pytest.mark.parametrize("old", [False, True], ids=["", "old"])
def test_a_bit_flipped_at_any_of_1000_places_is_found_or_harmless(shard: Path, old: bool) -> None:
    if old:
        fix_attribute_lengths(shard)
    sound, whole = read_all(shard), shard.read_bytes()
    rng, found = np.random.default_rng(0), 0
    for position, bit in zip(rng.integers(0, len(whole), 1000), rng.integers(0, 8, 1000), strict=True):
        data = bytearray(whole)
        data[position] ^= 1 << bit  # any other exception fails the test
        shard.write_bytes(data)
        try:
            assert read_all(shard) == sound, position
        except ShardError:
            found += 1
    assert found > 600  # HDF5 leaves some bytes unused


def test_every_byte_of_the_columns_counts(shard: Path) -> None:
    whole = shard.read_bytes()
    with h5py.File(shard) as file:
        chunks = [file[name].id.get_chunk_info(0) for name in read_columns(file)]
    for chunk in chunks:
        for position in {0, chunk.size // 2, chunk.size - 1}:
            data = bytearray(whole)
            data[chunk.byte_offset + position] ^= 0x10
            shard.write_bytes(data)
            with pytest.raises(ShardError):
                verify_shard(shard)


NUMBERS = {"version", "shard_index", "shard_count"}


@pytest.mark.parametrize("name", sorted({*ROOT_ATTRIBUTES, "attributes_sha256"} - NUMBERS))
def test_the_text_of_attributes_counts(shard: Path, name: str) -> None:
    """HDF5 has no checksum over them."""
    with h5py.File(shard) as file:
        value = file.attrs[name]
    whole, data = shard.read_bytes(), value.encode()
    assert whole.count(data) == 1
    for offset in {0, len(data) // 2, len(data) - 1}:
        damaged = bytearray(whole)
        damaged[whole.index(data) + offset] ^= 1
        shard.write_bytes(damaged)
        with pytest.raises(ShardError, match=shard.name):
            verify_shard(shard)


@pytest.mark.parametrize("name", sorted(NUMBERS))
def test_a_number_among_the_attributes_counts(shard: Path, name: str) -> None:
    with h5py.File(shard, "r+") as file:
        file.attrs[name] = file.attrs[name] - 1
    with pytest.raises(ShardError, match="the attributes of / do not have the hash stored with them"):
        verify_shard(shard)


# What this module finds, and what HDF5 does.
HEAP_FAULT = r".*\.h5: damaged \((variable-length text has no valid sizes|.*heap object size does not match)"


def test_a_damaged_heap_of_text_is_found_and_not_read_for_ever(shard: Path) -> None:
    """Its objects' sizes; HDF5 would go on from size to size without an end."""
    entry, whole, found = verify_shard(shard), shard.read_bytes(), 0
    with h5py.File(shard) as file:
        texts = [value.encode() for value in file.attrs.values() if isinstance(value, str)]
    for text in texts:
        for bit in range(12):
            data = bytearray(whole)
            data[whole.index(text) - 8 + bit // 8] ^= 1 << bit % 8
            shard.write_bytes(data)
            try:
                assert verify_shard(shard) == entry
            except ShardError as error:
                found += 1
                print("MSG", str(error)[len(str(shard)) :])
    assert found > len(texts)


def test_attributes_that_others_add_do_not_count(shard: Path) -> None:
    entry = verify_shard(shard)
    with h5py.File(shard, "r+") as file:
        file.attrs["mine"] = "note"
    assert verify_shard(shard) == entry


def test_an_attribute_changed_is_found(shard: Path) -> None:
    with h5py.File(shard, "r+") as file:
        file.attrs["image_root"] = "/elsewhere"
    with pytest.raises(ShardError, match="the attributes of / do not have the hash stored with them"):
        verify_shard(shard)


def test_the_message_names_the_file(shard: Path) -> None:
    shard.write_bytes(shard.read_bytes()[:-1])
    with pytest.raises(ShardError, match=shard.name):
        verify_shard(shard)


def test_a_shard_cut_at_any_of_1000_places_is_found(shard: Path) -> None:
    whole = shard.read_bytes()
    for length in [0, 1, 8, len(whole) - 1, *np.random.default_rng(0).integers(0, len(whole), 1000)]:
        shard.write_bytes(whole[:length])
        with pytest.raises(ShardError):
            verify_shard(shard)


def overwrite(name: str, change: Callable[[np.ndarray], np.ndarray]) -> Callable[[h5py.File], None]:
    """Replace a column by a changed copy and make the hashes fit: only the meaning is wrong."""

    def edit(file: h5py.File) -> None:
        values = change(file[name][...])
        del file[name]
        file.create_dataset(name, data=values)
        file.attrs["content_sha256"] = content_sha256(read_columns(file))
        del file.attrs["attributes_sha256"]

    return edit


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("images/proposals_begin", lambda v: v[::-1], "images/proposals_begin does not partition"),
        ("images/proposals_begin", lambda v: v + 1, "images/proposals_begin does not partition"),
        ("images/proposals_begin", lambda v: v[:-1], "images/proposals_begin does not partition"),
        ("images/proposals_begin", lambda v: np.array([0, 3, 2, 5]), "images/proposals_begin does not partition"),
        ("images/proposals_begin", lambda v: np.array([0, 2, 3, 5]), "a mask"),
        ("proposals/rle_begin", lambda v: np.append(v[:-1], v[-1] + 1), "proposals/rle_begin does not partition"),
        ("proposals/rle_begin", lambda v: np.concatenate([v[:1], v[1:2] - 1, v[2:]]), "a mask"),
        ("proposals/rle", lambda v: v[::-1], "a mask"),
        ("proposals/area", lambda v: v[::-1], "a mask's area is not the one stored"),
        ("proposals/bbox", lambda v: v[:, [1, 0, 3, 2]], "a mask's box is not the one stored"),
        ("proposals/score", lambda v: v[:-1], "proposals/bbox has 5 rows, not 4"),
        ("proposals/score", lambda v: v.astype(">f4"), "proposals/score is >f4"),
        ("proposals/score", lambda v: np.full_like(v, np.nan), "not finite"),
        ("proposals/feature", lambda v: v.astype("f4"), "proposals/feature is <f4"),
        ("proposals/feature", lambda v: v[:, 0], "proposals/feature is <f2 with 1 dimensions"),
        ("images/height", lambda v: v[:-1], "images/height has 2 rows, not 3"),
        ("images/width", lambda v: v + 1, "a mask"),
        ("failures/error", lambda v: v[:0], "differ in length"),
    ],
)
def test_a_column_that_contradicts_the_others_is_found(
    shard: Path, name: str, change: Callable[[np.ndarray], np.ndarray], message: str
) -> None:
    with h5py.File(shard, "r+") as file:
        overwrite(name, change)(file)
    with pytest.raises(ShardError, match=message):
        verify_shard(shard)


def test_two_columns_swapped_are_found(shard: Path) -> None:
    with h5py.File(shard, "r+") as file:
        file.move("images/height", "images/swap")
        file.move("images/width", "images/height")
        file.move("images/swap", "images/width")
    with pytest.raises(ShardError, match="content hash"):
        verify_shard(shard)


def test_masks_are_looked_into_only_when_asked(
    tmp_path: Path, write: Callable[..., str], some_contents: Contents
) -> None:
    records, failures, dim = some_contents
    wrong = replace(records[0], area=records[0].area + 1)
    write(tmp_path / "a.h5", ([wrong, *records[1:]], failures, dim))
    assert verify_shard(tmp_path / "a.h5", decode_masks=False).proposals == 5
    with pytest.raises(ShardError, match="area"):
        verify_shard(tmp_path / "a.h5")


def test_a_column_that_is_a_group_is_found(shard: Path) -> None:
    with h5py.File(shard, "r+") as file:
        del file["images/id"]
        file.create_group("images/id")
    with pytest.raises(ShardError):
        verify_shard(shard)
