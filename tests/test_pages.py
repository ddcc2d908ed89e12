"""README.md and docs: commands in code blocks parse, options in the text exist, and so do the sections linked to."""

import os
import re
import shlex
import subprocess
from collections.abc import Iterator
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


def leaf_commands(command: click.Command) -> Iterator[tuple[str, click.Command]]:
    """All commands below a group that are no groups, with their names; those of a group by their own name."""
    for name in command.list_commands(click.Context(command)) if isinstance(command, click.Group) else ():
        child = command.get_command(click.Context(command), name)
        assert child is not None
        if isinstance(child, click.Group):
            yield from leaf_commands(child)
        else:
            yield command.name if command.name and name.isdigit() else name, child


# Of each command; those of `bench` and `draw` under the name of the part or picture, those of a number under `table`.
OPTIONS: dict[str, set[str]] = {}
for command_name, leaf in leaf_commands(application):
    OPTIONS.setdefault(command_name, set()).update(word for parameter in leaf.params for word in parameter.opts)


def commands_named(text: str) -> set[str]:
    """The commands of the application that a text names as `make COMMAND` or with PICTURE, PART or N."""
    return set(re.findall(r"(?:\bmake |\b(?:PICTURE|PART|N)=)([a-z]+)", text)) & set(OPTIONS)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_options_in_the_text_are_those_of_a_command_that_the_section_names(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for section in re.split(r"^#+ ", text, flags=re.MULTILINE):
        known = set[str]().union(*(OPTIONS[name] for name in commands_named(section) or commands_named(text)))
        for span in re.findall(r"`([^`]+)`", re.sub(r"^```.*?^```$", "", section, flags=re.MULTILINE | re.DOTALL)):
            if opts := re.search(r'OPTS=("[^"]*"|\S+)', span):
                assert set(re.findall(r"--[a-z-]+", opts[1])) <= known, span


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
