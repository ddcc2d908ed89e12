"""README.md and docs: the files they link to exist, and so do the targets and variables of their `make` commands."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
TARGETS = set(re.findall(r"^(?:takes\.)?([a-z]+)(?::| :?=).*## ", MAKEFILE, flags=re.MULTILINE))
VARIABLES = set(re.findall(r"\$\(([A-Z]+)\)", MAKEFILE)) | set(re.findall(r"^option\.(\w+)", MAKEFILE, re.MULTILINE))


def make_commands(text: str) -> list[str]:
    """What follows `make` in a page's code blocks and code spans."""
    blocks = re.findall(r"^```\w*\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    spans = re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL))
    return [match[1] for code in lines + spans if (match := re.match(r"\s*(?:[A-Z_]+=\S* )*make (.+)", code))]


def links(page: Path) -> list[str]:
    """The files that a page links to."""
    targets = re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text(encoding="utf-8"))
    return [target for target in targets if "://" not in target]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_make_command_names_a_target_and_known_variables(page: Path) -> None:
    for command in make_commands(page.read_text(encoding="utf-8")):
        bare = re.sub(r'"[^"]*"', "", command)  # without what is quoted: names in RUNS, options in OPTS
        assert bare.split()[0] in TARGETS, command
        assert set(re.findall(r"\b([A-Z_]+)=", bare)) <= VARIABLES, command


def test_the_readmes_commands_and_links_are_read() -> None:
    assert links(PAGES[0])
    assert {"setup", "demo"} <= {command.split()[0] for command in make_commands(PAGES[0].read_text(encoding="utf-8"))}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_files_linked_exist(page: Path) -> None:
    assert all((page.parent / link).exists() for link in links(page))


def test_every_target_is_one_line_of_make_help_and_none_is_long() -> None:
    assert {"proposals", "pretrain", "finetune", "help", "lint"} < TARGETS
    assert max(map(len, MAKEFILE.splitlines())) <= 120
