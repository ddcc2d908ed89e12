"""Runs beside each other: which belong together, what distinguishes them, and what seeds alone change."""

import hashlib
import re
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import takewhile
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from pipelines.reporting.runs import Run
from stage2_training.runs.work_dir import settings

SEED, WEIGHTS = "randomness.seed", "initialisation.sha256"
HASH = re.compile("[0-9a-f]{64}")
SEED_AND_DIGEST = re.compile(r"-seed\d+(-[0-9a-f]{6})?$")  # what the runs of tables and figures end in
TOGETHER = 40  # characters in which the names of runs of several seeds may differ


@dataclass(frozen=True)
class Seeds:
    """Runs that differ in their seed alone, or a single run; `name` is theirs together."""

    runs: tuple[Run, ...]
    name: str

    @property
    def finished(self) -> tuple[Run, ...]:
        return tuple(run for run in self.runs if run.status == "finished")

    def mean(self, score: str) -> tuple[float, float] | None:
        """Mean and sample deviation (0 of one run) over the finished runs, where there are such objects."""
        values = [run.scores[score] for run in self.finished if run.scores.get(score, -1) >= 0]
        return (fmean(values), stdev(values) if len(values) > 1 else 0.0) if values else None

    def band(self, lines: Iterable[Sequence[tuple[float, float]]]) -> list[tuple[float, float, float, float]]:
        """(x, mean, lowest, highest) of the runs' lines, at each x where all that reach so far have a value."""
        values: dict[float, list[float]] = defaultdict(list)
        spans = []
        for line in filter(None, lines):
            spans.append((line[0][0], line[-1][0]))
            for x, y in line:
                values[x].append(y)
        return [
            (x, fmean(ys), min(ys), max(ys))
            for x, ys in sorted(values.items())
            if len(ys) == sum(first <= x <= last for first, last in spans)
        ]


class Comparison:
    """All runs of a report.

    Args:
        runs: in the order of their names.
    """

    def __init__(self, runs: Sequence[Run]) -> None:
        self.runs = runs
        self._by_path = {run.path.resolve(): run for run in runs}
        self._settings = {run.name: settings(run.config) for run in runs}
        self._keys: dict[str, str] = {}
        self.labels = short_names([run.name for run in runs])
        self._but_for_ends = Counter(map(without_seed, self.labels.values()))

    def parent(self, run: Run) -> Run | None:
        """The run that a run's initial weights are from."""
        if run.source is None:
            return None
        folders = [run.origin() or Path(), Path()]
        found = (self._by_path.get((folder / run.source).parent.resolve()) for folder in folders)
        return next((parent for parent in found if parent is not None and parent is not run), None)

    def siblings(self, run: Run) -> Hashable:
        """The same for runs that differ in little: of the same kind and model, on the same labels."""
        return run.pretraining, run.labels, run.model

    @cached_property
    def families(self) -> dict[Hashable, list[Run]]:
        return group(sorted(self.runs, key=lambda run: run.pretraining), self.siblings)

    def seeds(self, runs: Iterable[Run]) -> list[Seeds]:
        """Runs by all that they have in common but seeds."""
        groups = group(sorted(runs, key=lambda run: run.name), self._but_for_seeds).values()
        return [Seeds(tuple(alike), self._name_together([self.labels[run.name] for run in alike])) for alike in groups]

    def _name_together(self, names: Sequence[str]) -> str:
        """Runs' names without seeds and digests, where these runs and no others are called so."""
        short = without_seed(names[0])
        alone = self._but_for_ends[short] == len(names) == sum(without_seed(name) == short for name in names)
        return short if alone and len(names) > 1 else name_together(names)

    def _but_for_seeds(self, run: Run) -> str:
        """A hash of a run's settings without its seed; its initial weights count by those of the run they are from."""
        if run.name not in self._keys:
            self._keys[run.name] = run.name  # for weights that come round in a circle
            parent = self.parent(run)
            counted = {key: value for key, value in self._settings[run.name].items() if key != SEED}
            if parent is not None:
                counted[WEIGHTS] = self._but_for_seeds(parent)
            text = repr(sorted((key, repr(value)) for key, value in counted.items()))
            self._keys[run.name] = hashlib.sha256(text.encode()).hexdigest()
        return self._keys[run.name]

    def differences(self, run: Run) -> dict[str, tuple[str, list[str]]]:
        """Settings in which a run's siblings are not all alike: its own value, and the others'."""
        return self._differences[run.name]

    @cached_property
    def _differences(self) -> dict[str, dict[str, tuple[str, list[str]]]]:
        found: dict[str, dict[str, tuple[str, list[str]]]] = {}
        for family in self.families.values():
            values: Mapping[str, dict[str, None]] = defaultdict(dict)  # an ordered set
            for key in dict.fromkeys(key for run in family for key in self._settings[run.name]):
                for run in family:
                    values[key][self._shown(run, key)] = None
            for run in family:
                found[run.name] = {
                    key: (own, [text for text in texts if text != own])
                    for key, texts in values.items()
                    if len(texts) > 1
                    for own in [self._shown(run, key)]
                }
        return found

    def _shown(self, run: Run, key: str) -> str:
        there: dict[str, Any] = self._settings[run.name]
        text = str(there[key]) if key in there else "not set"
        return text[:12] if HASH.fullmatch(text) else text


def short_names(paths: Sequence[str]) -> dict[str, str]:
    """Each path's last parts, as few of them as tell it from the others."""
    count: Counter[str] = Counter()
    for path in paths:
        count.update({path.split("/", cut)[-1] for cut in range(path.count("/") + 1)})
    return {
        path: next((end for cut in range(path.count("/"), 0, -1) if count[end := path.split("/", cut)[-1]] == 1), path)
        for path in paths
    }


def without_seed(name: str) -> str:
    """`runs/knet-sp` of `runs/knet-sp-seed2-1f9c03`."""
    return SEED_AND_DIGEST.sub("", name)


def name_together(names: Sequence[str]) -> str:
    """`knet-sp-seed{0,1,2}`; of names that have little in common, the first and how many more there are."""
    first = _common_start(names)
    last = _common_start([name[len(first) :][::-1] for name in names])[::-1]
    middle = ",".join(name[len(first) : len(name) - len(last)] for name in names)
    if len(names) == 1:
        return names[0]
    return f"{first}{{{middle}}}{last}" if len(middle) <= TOGETHER else f"{names[0]} and {len(names) - 1} more"


def _common_start(names: Sequence[str]) -> str:
    return "".join(
        letters[0] for letters in takewhile(lambda letters: len(set(letters)) == 1, zip(*names, strict=False))
    )


def group(runs: Iterable[Run], key: Any) -> dict[Any, list[Run]]:
    groups: dict[Any, list[Run]] = defaultdict(list)
    for run in runs:
        groups[key(run)].append(run)
    return dict(groups)
