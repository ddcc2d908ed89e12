"""docs/shards.md says what is true."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stage1_proposals.shards import ImageRecord, ShardReader, shard_file_name
from stage1_proposals.shards.schema import COLUMNS, FORMAT, OPTIONAL_COLUMNS, ROOT_ATTRIBUTES, VERSION

DOCS = Path(__file__).parents[3] / "docs" / "shards.md"
Contents = tuple[list[ImageRecord], list[tuple[str, str]], int]


def code_blocks() -> list[str]:
    return re.findall(r"```python\n(.*?)```", DOCS.read_text(encoding="utf-8"), re.DOTALL)


@pytest.fixture
def directory(
    tmp_path: Path, write: Callable[..., str], some_contents: Contents, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """The working directory, with a shard where the documentation looks for one."""
    (tmp_path / "shards").mkdir()
    write(tmp_path / "shards" / shard_file_name(0, 1), some_contents)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_six_lines_draw_a_mask(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    lines = code_blocks()[0]
    assert len(lines.splitlines()) == 6
    assert "stage1_proposals" not in lines
    exec(lines, {})
    (image,) = plt.gca().get_images()
    expected = ShardReader(directory / "shards" / shard_file_name(0, 1)).read(0).masks()[0]
    assert np.array_equal(image.get_array(), expected)
    plt.close()


def test_the_readers_lines_run(directory: Path) -> None:
    names: dict[str, Any] = {}
    exec(code_blocks()[1], names)
    assert names["record"].masks().shape[0] == 3


def test_every_column_and_attribute_is_documented() -> None:
    text = DOCS.read_text(encoding="utf-8")
    for name in {**COLUMNS, **OPTIONAL_COLUMNS}:
        assert f"`/{name}`" in text, name
    for name in ROOT_ATTRIBUTES:
        assert f"`{name}`" in text, name
    assert f"version {VERSION}\n" in text
    assert FORMAT in text
