"""README and docs show only commands, variables, options and files that exist."""

import re
from pathlib import Path

import pytest

from tests.shown_commands import in_code_blocks, in_text, parse

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
COMMANDS = sorted({command for page in PAGES for command in in_code_blocks(page.read_text(encoding="utf-8"))})

by_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


@pytest.mark.parametrize("command", [command for command in COMMANDS if command != "make test"])
def test_every_command_in_a_code_block_parses(command: str) -> None:
    parse(command)


@by_page
def test_the_targets_and_variables_in_the_text_exist(page: Path) -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for command in in_text(page.read_text(encoding="utf-8")):
        words = re.sub(r'"[^"]*"', "", command)
        target, *variables = re.findall(r"(?<=^make )[a-z]+|[A-Z_]+(?==)", words)
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE), command
        assert all(re.search(rf"\b{variable}\b", makefile) for variable in variables), command


@by_page
def test_the_files_linked_exist(page: Path) -> None:
    for link in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text(encoding="utf-8")):
        assert (page.parent / link).exists(), link


@by_page
def test_the_sections_linked_exist(page: Path) -> None:
    for file, section in re.findall(r"\]\((?!https?:)([^)#]*)#([^)]+)\)", page.read_text(encoding="utf-8")):
        target = (page.parent / file if file else page).read_text(encoding="utf-8")
        headings = re.findall(r"^#+ (.*)$", target, flags=re.MULTILINE)
        assert section in {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_the_readme_links_every_page() -> None:
    readme = PAGES[0].read_text(encoding="utf-8")
    assert all(f"(docs/{page.name})" in readme for page in PAGES[1:])


def test_the_readme_is_short_and_has_one_picture() -> None:
    readme = PAGES[0].read_text(encoding="utf-8")
    assert len(readme.splitlines()) <= 90
    assert len(re.findall(r"!\[", readme)) == 1
