"""The README names every command, and only files and commands that are there."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
HELP = dict(re.findall(r"^([a-z]+):.*## (.*)$", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))


def test_the_table_is_that_of_make_help():
    table = {
        name: re.sub(r"<br>`(.*)`$", r": \1", text).replace("\\|", "|")
        for name, text in re.findall(r"^\| `([a-z]+)` \| (.*) \|$", README, flags=re.MULTILINE)
    }
    assert table == HELP


def test_the_commands_shown_exist():
    assert set(re.findall(r"^make +([a-z]+)", README, flags=re.MULTILINE)) <= set(HELP)


def test_the_files_linked_exist():
    links = re.findall(r"\]\(([^)#]+)\)", README)
    assert links
    assert all((ROOT / link).exists() for link in links)
