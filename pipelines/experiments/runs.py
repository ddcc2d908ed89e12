"""Runs: the project's commands with their arguments, named by their settings, so that equal runs are one run."""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property

from pipelines.experiments import fragments


@dataclass(frozen=True)
class Inside:
    """A path in a run's directory, as an argument of another run."""

    run: "Run"
    path: str = "."


@dataclass(frozen=True)
class Run:
    """One command, and where what it makes goes.

    Attributes:
        module: of `pipelines`.
        label: what it is, the readable part of its name.
        settings: its arguments, but for where it writes and what it runs on.
        output: the option that says where it writes; None: it has its own place, as real data sets have.
        file: in its directory, that `output` names; empty: the directory itself.
        proof: file in its directory that is there when it is finished.
        configs: fragments that it is made of, as paths under `configs`.
        after: runs that come before it and that no argument names.
        kind: runs of one kind take about as long.
        rough: seconds that it takes, roughly, on two CPU cores; None: not known.
    """

    module: str
    label: str
    settings: tuple[str | Inside, ...]
    output: str | None
    file: str = ""
    proof: str = "finished.json"
    configs: tuple[str, ...] = ()
    after: tuple["Run", ...] = ()
    kind: str = field(default="", compare=False)
    rough: float | None = field(default=None, compare=False)

    @cached_property
    def name(self) -> str:
        """Of its directory: its label and a digest of all its settings, those of the runs before it included."""
        words = [part if isinstance(part, str) else [part.run.name, part.path] for part in self.settings]
        said = [self.module, self.label, words, [fragments.digest(fragment) for fragment in self.configs]]
        digest = hashlib.sha256(json.dumps(said).encode()).hexdigest()
        return f"{self.label}-{digest[:6]}"

    @property
    def needs(self) -> tuple["Run", ...]:
        """The runs that must be finished before it."""
        return (*self.after, *(part.run for part in self.settings if isinstance(part, Inside)))


def in_order(runs: Iterable[Run]) -> list[Run]:
    """The runs and all they need, each once, what is needed first."""
    ordered: dict[Run, None] = {}

    def add(run: Run) -> None:
        if run not in ordered:
            for needed in run.needs:
                add(needed)
            ordered[run] = None

    for run in runs:
        add(run)
    return list(ordered)


def option(name: str, *values: object) -> tuple[str, ...]:
    """The words of an option; none where there is no value."""
    given = tuple(str(value) for value in values if value is not None)
    return (name, *given) if given else ()
