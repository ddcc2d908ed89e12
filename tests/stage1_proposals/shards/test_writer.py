"""What the writer puts on disk, and that it is whole or not there."""

import hashlib
import json
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import h5py
import numpy as np
import pytest

from stage1_proposals.common.files import atomic_write, write_json
from stage1_proposals.shards.schema import COLUMNS, ROOT_ATTRIBUTES, ImageRecord, to_columns

Contents = tuple[list[ImageRecord], list[tuple[str, str]], int]


def test_the_file_holds_the_schemas_columns_chunked_and_checksummed(shard: Path, some_contents: Contents) -> None:
    with h5py.File(shard) as file:
        found: list[str] = []
        file.visititems(lambda name, item: found.append(name) if isinstance(item, h5py.Dataset) else None)
        assert sorted(found) == sorted(COLUMNS)
        for name, values in to_columns(*some_contents).items():
            dataset = file[name]
            assert dataset.fletcher32, name
            assert dataset.chunks, name
            if isinstance(values, list):
                assert [bytes(text).decode() for text in dataset[...]] == values
            else:
                assert dataset.dtype.str == COLUMNS[name].dtype
                assert np.array_equal(dataset[...], values)


def test_text_is_tagged_utf8(shard: Path) -> None:
    with h5py.File(shard) as file:
        for name, column in COLUMNS.items():
            if column.dtype is None:
                assert h5py.check_string_dtype(file[name].dtype).encoding == "utf-8"


def test_root_attributes_are_str_and_int_to_h5py(shard: Path) -> None:
    with h5py.File(shard) as file:
        assert sorted(file.attrs) == sorted([*ROOT_ATTRIBUTES, "attributes_sha256"])
        assert file.attrs["format"] == "saliency-prompt/pseudo-labels"
        assert file.attrs["image_root"] == "/images/ünï"
        for name, value in file.attrs.items():
            assert isinstance(value, np.int64 if name in ("version", "shard_index", "shard_count") else str), name
            text = h5py.check_string_dtype(file.attrs.get_id(name).dtype)
            assert text is None or text.encoding == "utf-8", name


def test_the_attributes_hash_is_the_documented_one(shard: Path) -> None:
    with h5py.File(shard) as file:
        attributes = {name: value if isinstance(value, str) else int(value) for name, value in file.attrs.items()}
    expected = attributes.pop("attributes_sha256")
    assert hashlib.sha256(json.dumps(attributes, sort_keys=True).encode()).hexdigest() == expected


def test_the_same_contents_have_the_same_hash_whatever_is_said_about_them(
    tmp_path: Path, write: Callable[..., str], some_contents: Contents
) -> None:
    one = write(tmp_path / "a.h5", some_contents)
    assert write(tmp_path / "b.h5", some_contents, software="other", image_root="/elsewhere") == one


@contextmanager
def full_disk() -> Iterator[None]:
    """No file may grow beyond 4,000 bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4000, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_is_an_os_error_and_leaves_nothing(
    tmp_path: Path, write: Callable[..., str], some_contents: Contents
) -> None:
    with full_disk(), pytest.raises(OSError, match="File too large"):
        write(tmp_path / "a.h5", some_contents)
    assert not list(tmp_path.iterdir())


def test_an_exception_in_the_middle_leaves_the_old_file_alone(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_json(path, {"old": 1})
    before = path.read_bytes()

    def half_a_file() -> None:
        with atomic_write(path) as scratch:
            scratch.write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        half_a_file()
    with pytest.raises(TypeError):
        write_json(path, object())
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_the_scratch_file_stands_beside_and_hidden(tmp_path: Path) -> None:
    with atomic_write(tmp_path / "a.h5") as scratch:
        scratch.write_text("new")
        assert scratch.parent == tmp_path
        assert scratch.name.startswith(".")
        assert scratch.suffix == ".tmp"
        assert not (tmp_path / "a.h5").exists()
    assert (tmp_path / "a.h5").read_text() == "new"
    assert not scratch.exists()
