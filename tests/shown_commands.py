"""The `make` commands that README and docs show, and what the commands' own parsers make of them."""

import os
import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import click
from pipelines.__main__ import application

ROOT = Path(__file__).parents[1]


def in_code_blocks(page: str) -> list[str]:
    """The `make` commands in a page's shell blocks, without comments and environment variables before them."""
    lines = "\n".join(re.findall(r"```sh\n(.*?)```", page, flags=re.DOTALL))
    commands = re.findall(r"^(?:[A-Z_]+=\S+ )?(make .*)$", lines, flags=re.MULTILINE)
    return [shlex.join(shlex.split(command, comments=True)) for command in commands]


def in_text(page: str) -> list[str]:
    """The `make` commands in the text of a page; they may hold placeholders."""
    text = re.sub(r"```.*?```", "", page, flags=re.DOTALL)
    return [" ".join(command.split()) for command in re.findall(r"`(make [^`]+)`", text)]


def parse(command: str) -> tuple[str, dict[str, Any]]:
    """The name and the options of the command that `make` runs.

    Raises:
        click.ClickException: an unknown option, or a bad value.
    """
    environment = {"PATH": os.environ["PATH"]}  # a test run by make has make's own variables
    run = subprocess.run(
        [*shlex.split(command), "--dry-run"], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    )
    _, *arguments = shlex.split(run.stdout.replace("\\\n", " ").splitlines()[-1])
    assert arguments[:2] == ["-m", "pipelines"]
    name, *words = arguments[2:]
    parsed = application.get_command(click.Context(application), name)
    if isinstance(parsed, click.Group):  # `draw curves`, `bench proposals`
        name, *words = words
        parsed = parsed.get_command(click.Context(parsed), name)
    assert parsed is not None, command
    return name, dict(parsed.make_context(name, words).params)
