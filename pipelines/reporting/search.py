"""What there is below a directory: runs, shard sets, tables and figures of experiments."""

import os
from dataclasses import dataclass, field
from pathlib import Path

from stage1_proposals.shards.shard_set import MANIFEST
from stage2_training.commands import COMMANDS

CONFIG = "config.py"
# What only a run's directory has beside its config.
MARKS = frozenset({COMMANDS, "finished.json", "initial.pth", "transfer.json", "last_checkpoint"})


@dataclass
class Found:
    """Paths, each in the order of its name.

    Attributes:
        runs: directories of training runs.
        shard_sets: directories with a manifest.
        tables, figures: JSON and PNG files made by `make table` and `make figure`.
    """

    runs: list[Path] = field(default_factory=list)
    shard_sets: list[Path] = field(default_factory=list)
    tables: list[Path] = field(default_factory=list)
    figures: list[Path] = field(default_factory=list)

    def anything(self) -> bool:
        return bool(self.runs or self.shard_sets or self.tables or self.figures)


def search(directory: Path) -> Found:
    """Everything below a directory that the report shows; what it has no permission to list is passed over."""
    found = Found()
    for folder, folders, files in os.walk(directory):
        folders.sort()
        here, names = Path(folder), sorted(files)
        if MARKS.intersection(names) or (CONFIG in names and ".lock" in names):
            found.runs.append(here)
            folders.clear()  # logs
        elif MANIFEST in names:
            found.shard_sets.append(here)
        elif here.name == "tables":
            found.tables += [here / name for name in names if name.endswith(".json")]
        elif here.name == "figures":
            found.figures += [here / name for name in names if name.endswith(".png")]
    return found
