"""Provenance of a run: the commands that started it, one JSON line each in its `commands.jsonl`."""

import json
import platform
import subprocess
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from stage1_proposals.common.files import append_line

COMMANDS = "commands.jsonl"
# Libraries that a run's numbers may depend on: the name of the module, and of the package.
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


@dataclass(frozen=True)
class CommandRecord:
    """One start of a run: what to type to have the same run again, and what it ran on.

    Attributes:
        argv: as typed, paths included, from `python` on.
        started: ISO 8601, UTC.
        software: versions by name; `code` is that of this project.
        device: for a person to read.
    """

    argv: list[str]
    started: str
    software: dict[str, str]
    device: str

    @classmethod
    def now(cls, argv: Sequence[str], device: str) -> "CommandRecord":
        """The record of a run that starts now, with this software."""
        software = {"code": code_version(), "python": platform.python_version()}
        software |= {name: version(package) for name, package in PACKAGES.items()}
        started = datetime.now(UTC).isoformat(timespec="seconds")
        return cls(argv=list(argv), started=started, software=software, device=device)

    def append_to(self, directory: Path) -> None:
        """Append this record to the `commands.jsonl` of a work directory.

        Raises:
            UserError: the file cannot be written.
        """
        append_line(directory / COMMANDS, json.dumps(asdict(self)))

    @classmethod
    def read_all(cls, directory: Path) -> list["CommandRecord"]:
        """Every start of a run, the first one first; incomplete and foreign lines are skipped.

        Raises:
            OSError: the file exists and cannot be read.
        """
        try:
            lines = (directory / COMMANDS).read_text(encoding="utf-8", errors="replace").splitlines()
        except FileNotFoundError:
            return []
        return [record for record in map(cls._parse, lines) if record]

    @classmethod
    def _parse(cls, line: str) -> "CommandRecord | None":
        try:
            values = json.loads(line)
            record = cls(values["argv"], values["started"], values["software"], values["device"])
        except (ValueError, RecursionError, TypeError, KeyError):
            return None
        is_valid = (
            isinstance(record.argv, list)
            and all(isinstance(word, str) for word in record.argv)
            and isinstance(record.started, str)
            and isinstance(record.software, dict)
            and isinstance(record.device, str)
        )
        return record if is_valid else None


def code_version() -> str:
    """The commit that this code is at, with `-dirty` if it was changed since; the version outside a git checkout.

    `unknown` where this is a git checkout and git cannot tell.
    """
    if (ROOT / ".git").exists():  # else git would answer for a repository further up
        command = ["git", "-C", str(ROOT), "describe", "--always", "--dirty"]
        try:
            described = subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
        except OSError:  # git is not installed
            described = ""
        return described or "unknown"
    return version("saliency-prompt")
