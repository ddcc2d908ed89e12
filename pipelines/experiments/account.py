"""What stands beside a table or figure: what one must know of it, and all that is needed to repeat it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipelines import steps
from pipelines.benchmarks import machine
from pipelines.duration import duration
from pipelines.experiments.drawings import Figure
from pipelines.experiments.paper import Table
from pipelines.experiments.runs import Run
from pipelines.experiments.scales import Scale
from pipelines.experiments.workspace import Workspace
from stage1_proposals.common.files import write_json, writing


def account(
    of: Table | Figure, scale: Scale, notes: Sequence[str], runs: Sequence[Run], workspace: Workspace, device: str
) -> dict[str, Any]:
    """It in plain values; `runs` are directories below the workspace.

    Args:
        device: that the runs ran on.
    """
    seconds = workspace.seconds()
    return {
        "title": of.title,
        "number": of.number,
        "scale": scale.name,
        "notes": list(notes),
        "runs": [str(workspace.directory(run).relative_to(workspace.root)) for run in runs if run.output],
        "commands": [steps.typed(run.module, workspace.arguments(run)) for run in runs],
        "machine": machine.describe(device),
        "seconds": round(sum(seconds.get(run.name, 0) for run in runs)),
    }


def write(told: dict[str, Any], markdown: str, path: Path, values: str = ".json") -> Path:
    """Write what is told twice, for people and for programs.

    Args:
        path: of the Markdown.
        values: the ending of the JSON beside it, in place of the Markdown's.

    Returns:
        `path`.

    Raises:
        UserError: they cannot be written.
    """
    with writing(path):
        write_json(path.with_suffix(values), told)
        path.write_text(markdown, encoding="utf-8")
    return path


def as_text(heading: str, told: dict[str, Any], body: str | None = None) -> str:
    """For the terminal."""
    return "\n\n".join(part for part in (heading, body, _listed(told["notes"])) if part)


def as_markdown(heading: str, told: dict[str, Any], body: str) -> str:
    """With all that is needed to repeat it."""
    commands = "\n".join(told["commands"])
    made = f"Made on {told['machine']}; the runs took {duration(told['seconds'])}, added up."
    return f"## {heading}\n\n{body}\n\n{_listed(told['notes'])}\n\n{made}\n\n```sh\n{commands}\n```\n"


def _listed(notes: Sequence[str]) -> str:
    return "\n".join(f"- {note}" for note in notes)
