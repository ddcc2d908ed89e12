"""What tables and figures say of themselves."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines.duration import duration
from pipelines.reporting.notes import Notes


@dataclass(frozen=True)
class About:
    """What stands above and below a table or figure; `runs` are its runs' names on the page."""

    title: str
    notes: list[str]
    commands: list[str]
    runs: list[str]


def read_about(value: dict[str, Any], kind: str, path: Path, notes: Notes) -> About:
    """It from JSON.

    Args:
        kind: `Table` or `Figure`.
        path: of the JSON; its runs are relative to the folder that its own folder is in.

    Raises:
        ValueError: it is not as `make table` and `make figure` write it.
    """
    number, scale, seconds, machine = (value.get(key) for key in ("number", "scale", "seconds", "machine"))
    name = f"{kind} {number}: " if number is not None else ""
    took = [f"Took {duration(seconds)}."] if isinstance(seconds, int | float) else []
    return About(
        title=f"{name}{value.get('title') or path.stem}" + (f" ({scale} scale)" if scale else ""),
        notes=[*texts(value.get("notes") or []), *took, *([f"Made on {machine}."] if machine else [])],
        commands=texts(value.get("commands") or []),
        runs=[notes.shown(path.parent.parent / run) for run in texts(value.get("runs") or [])],
    )


def texts(values: Any) -> list[str]:
    """Values of a list as text.

    Raises:
        ValueError: it is no list.
    """
    if not isinstance(values, list):
        raise ValueError("not the JSON of a table or figure: a list is missing")
    return [str(value) for value in values]
