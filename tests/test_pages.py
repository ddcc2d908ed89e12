"""README.md and docs: every command in a code block parses, sections that are linked to exist, the README is short."""

import os
import re
import shlex
import subprocess
from pathlib import Path

import click
import pytest

from pipelines.__main__ import application

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
README = PAGES[0].read_text(encoding="utf-8")


def commands_in_code_blocks() -> list[str]:
    """The `make` commands of all pages that run a command of the application."""
    blocks = [block for page in PAGES for block in re.findall(r"```sh\n(.*?)```", page.read_text("utf-8"), re.DOTALL)]
    lines = re.findall(r"^(?:[A-Z_]+=\S+ )?(make .*)$", "\n".join(blocks), flags=re.MULTILINE)
    return sorted({shlex.join(shlex.split(line, comments=True)) for line in lines} - {"make test"})


@pytest.mark.parametrize("command", commands_in_code_blocks())
def test_a_command_in_a_code_block_parses(command: str) -> None:
    environment = {"PATH": os.environ["PATH"]}  # a test run by make has make's own variables
    run = subprocess.run(
        [*shlex.split(command), "--dry-run"], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    )
    _, option, package, *words = shlex.split(run.stdout.splitlines()[-1])
    assert (option, package) == ("-m", "pipelines")
    parser: click.Command | None = application
    while isinstance(parser, click.Group):  # also `draw PICTURE`, `bench PART`
        name, *words = words
        parser = parser.get_command(click.Context(parser), name)
    assert parser is not None
    parser.make_context(name, words)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_sections_linked_exist(page: Path) -> None:
    for file, section in re.findall(r"\]\((?!https?:)([^)#]*)#([^)]+)\)", page.read_text(encoding="utf-8")):
        target = (page.parent / file if file else page).read_text(encoding="utf-8")
        headings = re.findall(r"^#+ (.*)$", target, flags=re.MULTILINE)
        assert section in {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_the_readme_links_every_page() -> None:
    assert all(f"(docs/{page.name})" in README for page in PAGES[1:])


def test_the_readme_is_short_and_has_one_picture() -> None:
    assert len(README.splitlines()) <= 90
    assert README.count("![") == 1
