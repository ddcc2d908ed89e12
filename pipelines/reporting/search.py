"""What there is below a directory: runs, shard sets, tables and figures of experiments."""

import os
from dataclasses import dataclass, field
from pathlib import Path

from stage1_proposals.shards.shard_set import MANIFEST
from stage2_training.runs.provenance import COMMANDS

CONFIG = "config.py"
ABOUT = ".about.json"
# What only a run's directory has beside its config.
MARKS = frozenset({COMMANDS, "finished.json", "initial.pth", "transfer.json", "last_checkpoint"})


@dataclass
class Found:
    """Paths, each in the order of its name.

    Attributes:
        runs: directories of training runs.
        shard_sets: directories with a manifest.
        tables: JSON files made by `make table`.
        pictures, abouts: PNG files made by `make figure`, and JSON files of what it says of them.
    """

    runs: list[Path] = field(default_factory=list)
    shard_sets: list[Path] = field(default_factory=list)
    tables: list[Path] = field(default_factory=list)
    pictures: list[Path] = field(default_factory=list)
    abouts: list[Path] = field(default_factory=list)

    def anything(self) -> bool:
        return bool(self.runs or self.shard_sets or self.tables or self.pictures)


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
            found.pictures += [here / name for name in names if name.endswith(".png")]
            found.abouts += [here / name for name in names if name.endswith(ABOUT)]
    return found
