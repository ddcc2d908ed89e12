"""Command lines run in the test's own process."""

from typing import Any

import click

from pipelines.__main__ import application, main


def run_command(*words: object) -> int:
    """The exit code of `python -m pipelines WORDS`."""
    return main([str(word) for word in words])


def parse(name: str, *words: object) -> dict[str, Any]:
    """The settings that a command's function would get, before its decorators collect any.

    Raises:
        click.UsageError: as the command line does.
    """
    command = application.get_command(click.Context(application), name)
    assert command is not None
    return command.make_context(name, [str(word) for word in words]).params
