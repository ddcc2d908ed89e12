"""What a run's logs say: losses over steps, scores over epochs, how far it came and how long it took."""

import re
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from stage2_training.evaluation.scores import Point, Row, learning_curve, read_scalars

TIMESTAMP = re.compile(r"^(\d{4}/\d\d/\d\d \d\d:\d\d:\d\d) - mmengine", re.MULTILINE)
POINTS = 1000  # of a loss, at most
ENDS = 1 << 16  # bytes at each end of a log among which there is a line with its time

Line = list[tuple[float, float]]


@dataclass(frozen=True)
class Log:
    """All starts of a run as one.

    Attributes:
        losses: name to (step, value); `loss` is the sum, the others are summed over the heads' stages.
        curve: one point per evaluated epoch: `epoch`, and scores in [0, 1] by name.
        epoch, step: the last that were logged; 0 before.
        seconds: all starts together.
    """

    losses: dict[str, Line]
    curve: list[Point]
    epoch: int
    step: int
    seconds: float


def read_log(run: Path) -> Log:
    """A run's logs, of which half and foreign lines are passed over.

    Raises:
        OSError: a log cannot be read.
    """
    training: dict[int, Row] = {}
    starts = read_scalars(run)
    for rows in starts:
        steps = [int(row["step"]) for row in rows if "loss" in row]
        # A start goes on from the last checkpoint: what was done after it counts no more.
        training = {step: row for step, row in training.items() if not steps or step < steps[0]}
        training |= {int(row["step"]): row for row in rows if "loss" in row}
    last = max(training, default=0)
    return Log(
        losses=_losses(training),
        curve=learning_curve(starts),
        epoch=int(training[last].get("epoch", 0)) if last else 0,
        step=last,
        seconds=sum(map(_seconds, run.glob("*/*.log"))),
    )


def _losses(training: dict[int, Row]) -> dict[str, Line]:
    """Of a long run, every second, fourth ... line alone: the same steps in runs that are alike."""
    losses: dict[str, Line] = {}
    stride = 1 << (len(training) // POINTS).bit_length()
    for step in sorted(training)[stride - 1 :: stride]:
        sums: dict[str, float] = {}
        for key, value in training[step].items():
            name = key.rsplit(".", 1)[-1]
            if name.startswith("loss"):
                sums[name] = sums.get(name, 0) + value
        for name, value in sums.items():
            losses.setdefault(name, []).append((step, value))
    return losses


def _seconds(log: Path) -> float:
    """From a log's first line to its last; a file's own times do not survive being copied."""
    with open(log, "rb") as file:
        text = file.read(ENDS)
        size = file.seek(0, 2)
        file.seek(max(len(text), size - ENDS))
        found = TIMESTAMP.findall((text + b"\n" + file.read()).decode(errors="replace"))
    times = [datetime.strptime(found[end], "%Y/%m/%d %H:%M:%S") for end in (0, -1)] if found else []
    return (times[1] - times[0]).total_seconds() if times else 0.0
