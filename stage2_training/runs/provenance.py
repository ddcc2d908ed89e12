"""The commands that started a run, a line each in its `commands.jsonl`: what to type to have the same run again."""

import json
import platform
import subprocess
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from stage1_proposals.common.files import append_line

COMMANDS = "commands.jsonl"
# What a run's numbers may depend on: the name it is imported by, and the one it is installed by.
PACKAGES = {
    "torch": "torch",
    "torchvision": "torchvision",
    "mmengine": "onedl-mmengine",
    "mmcv": "onedl-mmcv",
    "mmdet": "onedl-mmdetection",
    "timm": "timm",
    "numpy": "numpy",
}
ROOT = Path(__file__).resolve().parents[2]


def record_command(directory: Path, argv: Sequence[str], device: str) -> None:
    """Append a start to the directory's `commands.jsonl`.

    Args:
        argv: as typed, paths included, from `python` on.
        device: what it ran on, for a person to read.

    Raises:
        UserError: the file cannot be written.
    """
    started = datetime.now(UTC).isoformat(timespec="seconds")
    line = json.dumps({"argv": list(argv), "started": started, "software": _software(), "device": device})
    append_line(directory / COMMANDS, line)


def read_commands(directory: Path) -> list[dict[str, Any]]:
    """Every start of a run, the first first: `argv`, `started`, `software`, `device`; without half and foreign lines.

    Raises:
        OSError: the file is there and cannot be read.
    """
    try:
        lines = (directory / COMMANDS).read_text(errors="replace").splitlines()
    except FileNotFoundError:
        return []
    return [record for record in map(_record, lines) if record]


def _record(line: str) -> dict[str, Any] | None:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    kinds = {"argv": list, "started": str, "software": dict, "device": str}
    sound = isinstance(record, dict) and all(isinstance(record.get(key), kind) for key, kind in kinds.items())
    return record if sound and all(isinstance(word, str) for word in record["argv"]) else None


def _software() -> dict[str, str]:
    versions = {name: version(package) for name, package in PACKAGES.items()}
    return {"code": _code(), "python": platform.python_version(), **versions}


def _code() -> str:
    """The commit this code is at, with `-dirty` when it was changed since; `unknown` outside a git checkout."""
    if not (ROOT / ".git").exists():  # else a repository further up would answer
        return "unknown"
    try:
        described = subprocess.run(
            ["git", "-C", str(ROOT), "describe", "--always", "--dirty"], capture_output=True, text=True, check=False
        )
    except OSError:  # no git here
        return "unknown"
    return described.stdout.strip() or "unknown"
