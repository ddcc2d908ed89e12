"""Where the runs of a scale are, what they run on, and how far they are: what was measured stands in `runs.jsonl`."""

import json
from collections import defaultdict
from contextlib import nullcontext, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import fmean

from pipelines.experiments.runs import Run
from stage1_proposals.common.errors import UserError
from stage1_proposals.common.files import append_line
from stage1_proposals.shards import Manifest

JOURNAL = "runs.jsonl"


@dataclass(frozen=True)
class Machine:
    """What runs run on: it changes how long they take, not what they are.

    Attributes:
        device: `cpu` or `cuda`; None: the GPU when there is one.
        gpus: processes of training.
        batch_size: images of a process at a time; None: the schedule's.
    """

    device: str | None = None
    gpus: int = 1
    batch_size: int | None = None

    def options(self, module: str) -> list[str]:
        """The options of a command that say it."""
        training = module in ("pretrain", "finetune")
        asked: list[tuple[str, object, bool]] = [
            ("--device", self.device, module in ("proposals", "pretrain", "finetune", "evaluate", "draw")),
            ("--gpus", self.gpus if self.gpus > 1 else None, training),
            ("--batch-size", self.batch_size, training),
        ]
        return [word for option, value, taken in asked if taken and value is not None for word in (option, str(value))]


@dataclass(frozen=True)
class Start:
    """One start of a run, as the journal has it.

    Attributes:
        run: its name.
        kind: as `Run.kind`.
        seconds: until it ended, in whatever way.
        finished: whether it ended well.
    """

    run: str
    kind: str
    seconds: float
    finished: bool


@dataclass(frozen=True)
class Workspace:
    """The directory of a scale: `runs/NAME`, `tables`, `figures`, and the journal of all starts."""

    root: Path
    machine: Machine = field(default_factory=Machine)

    def directory(self, run: Run) -> Path:
        return self.root / "runs" / run.name

    def arguments(self, run: Run) -> list[str]:
        """The words after the command's name."""
        words = [part if isinstance(part, str) else str(self.directory(part.run) / part.path) for part in run.settings]
        output = [run.output, str(self.directory(run) / run.file)] if run.output else []
        return [*words, *output, *self.machine.options(run.module)]

    def finished(self, run: Run) -> bool:
        """Whether a run needs no further start.

        Raises:
            ShardError: it makes shards, and their manifest is damaged.
        """
        if run.output is None:  # only the journal knows
            return any(start.finished for start in self.journal() if start.run == run.name)
        if run.module == "proposals":  # whose manifest is there from the first moment
            manifest = Manifest.read(self.directory(run))
            return manifest is not None and manifest.entries is not None
        return (self.directory(run) / run.proof).is_file()

    def begun(self, run: Run) -> bool:
        return self.directory(run).exists()

    def journal(self) -> list[Start]:
        """Every start there was, in order."""
        try:
            lines = (self.root / JOURNAL).read_text(encoding="utf-8").splitlines()
        except FileNotFoundError:
            return []
        starts = []
        for line in lines:
            with suppress(ValueError):  # half a line, of a command that was killed
                starts.append(Start(**json.loads(line)))
        return starts

    def record(self, run: Run, seconds: float, finished: bool) -> None:
        """Add a start to the journal.

        Raises:
            UserError: it cannot be written, and the start ended well; else there is an error to tell that came first.
        """
        line = json.dumps(asdict(Start(run.name, run.kind, round(seconds, 1), finished)))
        with nullcontext() if finished else suppress(UserError):
            append_line(self.root / JOURNAL, line)

    def seconds(self) -> dict[str, float]:
        """What each run took so far, by its name, all its starts together."""
        total: dict[str, float] = defaultdict(float)
        for start in self.journal():
            total[start.run] += start.seconds
        return dict(total)

    def expected_seconds(self, run: Run) -> float | None:
        """What a run takes: the mean of the finished ones of its kind, else the rough figure."""
        kinds = {start.run: start.kind for start in self.journal() if start.finished}
        alike = [seconds for name, seconds in self.seconds().items() if kinds.get(name) == run.kind]
        return fmean(alike) if alike else run.rough
