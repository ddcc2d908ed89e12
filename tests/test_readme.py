"""README and docs show only commands, variables and files that exist."""

import re
import shlex
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
TARGETS = set(re.findall(r"^([a-z]+):", MAKEFILE, flags=re.MULTILINE))
VARIABLES = set(re.findall(r"^([A-Z_]+) \?=", MAKEFILE, flags=re.MULTILINE))

by_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


def shown_commands(page: Path) -> list[list[str]]:
    """The words of every `make` command of a page, in its code blocks and in its text."""
    text = page.read_text(encoding="utf-8")
    blocks = "\n".join(re.findall(r"```sh\n(.*?)```", text, flags=re.DOTALL))
    inline = re.findall(r"`(make [^`]+)`", text)
    lines = [*re.findall(r"^(?:[A-Z_]+=\S+ )?(make .*)$", blocks, flags=re.MULTILINE), *inline]
    return [shlex.split(line, comments=True) for line in lines]


@by_page
def test_the_commands_shown_exist(page: Path) -> None:
    for _, target, *words in shown_commands(page):
        assert target in TARGETS
        for word in words:
            assert word.lstrip("[").partition("=")[0] in VARIABLES, word


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
