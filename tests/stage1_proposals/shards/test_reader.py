"""Reading rows, and refusing what is no shard of this version."""

import multiprocessing
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stage1_proposals.shards import ImageRecord, ShardError, ShardReader, to_columns
from stage1_proposals.shards.reader import open_shard
from stage1_proposals.shards.schema import COLUMNS, ROOT_ATTRIBUTES, content_sha256
from tests.shard_sets import fix_attribute_lengths

Contents = tuple[list[ImageRecord], list[tuple[str, str]], int]


def same(one: ImageRecord, other: ImageRecord) -> bool:
    arrays = ("bbox", "score", "area", "seed", "feature")
    return all(
        getattr(one, name).dtype == getattr(other, name).dtype
        and np.array_equal(getattr(one, name), getattr(other, name))
        for name in arrays
    ) and all(getattr(one, name) == getattr(other, name) for name in vars(one) if name not in arrays)


@settings(deadline=None, max_examples=40)
@given(data=st.data())
def test_what_is_written_is_read(
    tmp_path_factory: pytest.TempPathFactory, contents: Any, write: Callable[..., str], data: st.DataObject
) -> None:
    records, failures, dim = data.draw(contents)
    path = tmp_path_factory.mktemp("shards") / "a.h5"
    write(path, (records, failures, dim), image_root=failures[0][0] if failures else "")
    reader = ShardReader(path)
    assert len(reader) == len(records)
    assert all(same(reader.read(index), record) for index, record in enumerate(records))
    assert reader.failures() == failures
    assert reader.image_root == (failures[0][0] if failures else "")
    reader.close()


def test_attributes_are_text_numbers_and_parsed_json(shard: Path, some_contents: Contents) -> None:
    attributes = ShardReader(shard).attributes
    assert list(attributes) == list(ROOT_ATTRIBUTES)
    assert attributes["format"] == "saliency-prompt/pseudo-labels"
    assert (attributes["version"], attributes["shard_index"], attributes["shard_count"]) == (1, 0, 1)
    assert attributes["image_root"] == "/images/ünï"
    assert attributes["generator"]["threshold"] == 0.5
    assert attributes["backbone"]["feature_dim"] == 3
    assert attributes["content_sha256"] == content_sha256(to_columns(*some_contents))


def test_a_shard_of_before_with_attributes_of_fixed_length_says_the_same(shard: Path) -> None:
    attributes, record = ShardReader(shard).attributes, ShardReader(shard).read(0)
    fix_attribute_lengths(shard)
    with h5py.File(shard) as file:
        assert isinstance(file.attrs["format"], bytes)
        assert "attributes_sha256" not in file.attrs
    assert ShardReader(shard).attributes == attributes
    assert same(ShardReader(shard).read(0), record)


def test_masks_decode_to_their_areas_and_boxes(shard: Path) -> None:
    record = ShardReader(shard).read(0)
    masks = record.masks()
    assert masks.shape == (3, record.height, record.width)
    for mask, area, (x1, y1, x2, y2) in zip(masks, record.area, record.bbox, strict=True):
        rows, columns = np.nonzero(mask)
        assert len(rows) == area
        assert [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1] == [x1, y1, x2, y2]


@pytest.mark.parametrize("index", [-1, 3])
def test_there_is_no_image_beyond_the_last(shard: Path, index: int) -> None:
    with pytest.raises(IndexError, match="of 3"):
        ShardReader(shard).read(index)


def test_nothing_is_opened_before_it_is_needed(tmp_path: Path) -> None:
    reader = ShardReader(tmp_path / "gone.h5")
    with pytest.raises(ShardError, match=r"gone\.h5: no such shard"):
        len(reader)


def test_an_open_reader_pickles_closed(shard: Path) -> None:
    reader = ShardReader(shard)
    record = reader.read(2)
    copy = pickle.loads(pickle.dumps(reader))
    assert copy._file is None
    assert same(copy.read(2), record)


def test_a_closed_reader_opens_again(shard: Path) -> None:
    reader = ShardReader(shard)
    record = reader.read(0)
    reader.close()
    reader.close()
    assert same(reader.read(0), record)


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_an_open_reader_may_be_forked(shard: Path) -> None:
    reader = ShardReader(shard)
    expected = [reader.read(index).score.tolist() for index in range(3)]
    context = multiprocessing.get_context("fork")
    results = context.SimpleQueue()

    def read() -> None:
        for _ in range(50):
            results.put([reader.read(index).score.tolist() for index in range(3)])

    children = [context.Process(target=read) for _ in range(2)]
    for child in children:
        child.start()
    assert all(results.get() == expected for _ in range(100))
    for child in children:
        child.join()


def edit(path: Path, change: Callable[[h5py.File], None]) -> Path:
    with h5py.File(path, "r+") as file:
        change(file)
    return path


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda file: file.attrs.update(format="other"), "format is 'other', not 'saliency-prompt/pseudo-labels'"),
        (lambda file: file.attrs.pop("format"), "format is None"),
        (lambda file: file.attrs.update(version=2), "version 2 is newer than 1; update"),
        (lambda file: file.attrs.update(version="one"), "damaged"),
        (lambda file: file.attrs.pop("version"), "damaged"),
        (lambda file: file.attrs.pop("generator"), "lacks generator"),
        (lambda file: file.pop("images/width"), "lacks images/width"),
    ],
)
def test_another_format_or_version_is_refused(shard: Path, change: Callable[[h5py.File], None], message: str) -> None:
    with pytest.raises(ShardError, match=message):
        open_shard(edit(shard, change))


def test_a_file_that_is_not_hdf5_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.h5").write_text("text")
    with pytest.raises(ShardError, match="not a readable HDF5 file"):
        open_shard(tmp_path / "a.h5")
    with pytest.raises(ShardError):
        open_shard(tmp_path)


@pytest.mark.parametrize("name", [name for name in COLUMNS if name.startswith("proposals/")])
def test_a_row_with_a_damaged_byte_is_not_read(shard: Path, name: str) -> None:
    with h5py.File(shard) as file:
        chunk = file[name].id.get_chunk_info(0)
    data = bytearray(shard.read_bytes())
    data[chunk.byte_offset + chunk.size // 3] ^= 1
    shard.write_bytes(data)
    with pytest.raises(ShardError, match="image 0 is damaged"):
        ShardReader(shard).read(0)


def test_reading_ahead_asks_for_every_byte_in_order_and_is_a_hint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, asked = tmp_path / "a.h5", []
    path.write_bytes(bytes(300_000))

    def advise(descriptor: int, offset: int, length: int, advice: int) -> None:
        assert advice == os.POSIX_FADV_WILLNEED
        asked.append((offset, length))

    monkeypatch.setattr(os, "posix_fadvise", advise)
    ShardReader(path).read_ahead()
    assert asked == [(0, 131_072), (131_072, 131_072), (262_144, 131_072)]

    def refuse(*_: int) -> None:
        raise OSError

    monkeypatch.setattr(os, "posix_fadvise", refuse)
    ShardReader(path).read_ahead()
    monkeypatch.delattr(os, "posix_fadvise")
    ShardReader(path).read_ahead()
    ShardReader(tmp_path / "missing.h5").read_ahead()
