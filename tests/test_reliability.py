"""docs/reliability.md: every row of its tables names tests, and they exist."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
HEADER = ["what goes wrong", "what happens", "test"]


def tables() -> list[list[list[str]]]:
    """The tables of the page, each with its header and rows of cells."""
    text = (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8")
    blocks = re.findall(r"(?:^\|.*\|\n)+", text, flags=re.MULTILINE)
    return [[[cell.strip() for cell in line[1:-1].split("|")] for line in block.splitlines()] for block in blocks]


def rows() -> list[list[str]]:
    return [row for header, _, *rows in tables() for row in rows]


@cache
def defined_in(file: str) -> set[str]:
    """What pytest finds in a file: `test_x` and `TestClass::test_x`."""
    module = ast.parse((ROOT / file).read_text(encoding="utf-8"))
    classes = [node for node in module.body if isinstance(node, ast.ClassDef)]
    bodies = [("", module.body), *((f"{node.name}::", node.body) for node in classes)]
    return {prefix + node.name for prefix, body in bodies for node in body if isinstance(node, ast.FunctionDef)}


def test_every_table_has_the_same_columns_and_some_rows() -> None:
    assert len(tables()) >= 3
    for header, _, *rows in tables():
        assert header == HEADER
        assert rows
        assert all(len(row) == 3 and all(row) for row in rows)


@pytest.mark.parametrize("row", rows(), ids=lambda row: row[0])
def test_every_row_names_tests_that_exist(row: list[str]) -> None:
    for reference in row[2].split("<br>"):
        named = re.fullmatch(r"`(tests/[\w/]+\.py)::([\w:]*test_\w+)`", reference)
        assert named, reference
        file, name = named.groups()
        assert name in defined_in(file), reference
