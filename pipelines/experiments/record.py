"""The record of a finished table or figure: its content and all that is needed to repeat it, as JSON and Markdown."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import fmean, stdev
from typing import Any, Self

from pydantic import TypeAdapter

from pipelines import launch
from pipelines.console import describe_machine, duration, format_table
from pipelines.experiments.execute import state
from pipelines.experiments.plan import Run
from pipelines.experiments.scales import SCALES
from stage1_proposals.common.files import write_json, write_text, writing
from stage1_proposals.common.system import choose_device


def mean_and_spread(values: Sequence[float]) -> str:
    """Mean ± sample standard deviation of scores, in percent; without spread for one, `-` for none or below 0."""
    if not values or min(values) < 0:
        return "-"
    return f"{100 * fmean(values):.1f}" + (f" ± {100 * stdev(values):.1f}" if len(values) > 1 else "")


def provenance(runs: Sequence[Run], device: str | None) -> dict[str, Any]:
    """What a record says of the runs that it is made from."""
    return {
        "runs": [f"runs/{run.name}" for run in runs if run.result],
        "commands": [launch.typed(*run.words) for run in runs],
        "machine": describe_machine(choose_device(device)),
        "seconds": round(sum(state(run)["seconds"] for run in runs)),
    }


@dataclass(frozen=True)
class ExperimentRecord:
    """A table (`heading`, `rows`, `paper`) or a figure (`pictures`) of the paper; without a number, of other data."""

    title: str
    number: int | None
    scale: str  # its name; of own images, the labels'
    notes: list[str]
    runs: list[str]  # directories, relative to that of the scale
    commands: list[str]  # of the runs, and of the drawings
    machine: str  # device and versions that the runs ran on
    seconds: float  # that the runs took, added up
    heading: list[str] = field(default_factory=list)
    rows: list[list[str]] = field(default_factory=list)  # ours and the paper's, in percent, under the same heading
    paper: list[list[str]] = field(default_factory=list)
    pictures: list[str] = field(default_factory=list)  # file names, beside the record
    conclusions: list[str] = field(default_factory=list)  # sentences

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read the JSON; raises OSError when it cannot be read, ValueError when it is not a record."""
        record = TypeAdapter(cls).validate_json(path.read_bytes())
        if not record.pictures and "AP" not in record.heading:
            raise ValueError("neither a table with a column AP nor a figure")
        if len({len(row) for row in (record.heading, *record.rows, *record.paper)}) > 1:
            raise ValueError("rows are not as long as the heading")
        return record

    @property
    def name(self) -> str:
        if self.number is None:
            return self.title
        data = f"at {self.scale} scale" if self.scale in SCALES else f"on {self.scale}"
        return f"{'Figure' if self.pictures else 'Table'} {self.number}, {data}: {self.title}"

    @property
    def unit(self) -> str:
        """Of the table's numbers."""
        return "in percent; the paper's in parentheses" if self.paper else "in percent"

    @property
    def cells(self) -> list[dict[str, str]]:
        """Rows of our numbers by column, each with the paper's, if there are any, in parentheses."""
        if not self.paper:
            return [dict(zip(self.heading, row, strict=True)) for row in self.rows]
        names = self.heading.index("AP")  # the scores of every table of the paper begin with it
        return [
            dict(zip(self.heading, [*ours[:names], *map("{} ({})".format, ours[names:], paper[names:])], strict=True))
            for ours, paper in zip(self.rows, self.paper, strict=True)
        ]

    def text(self, markdown: bool = False) -> str:
        """As printed in the terminal; or as Markdown, with pictures and commands."""
        parts = [f"{self.name} ({self.unit})" if self.rows else self.name, *self.conclusions]
        if markdown:
            parts += [f"![{Path(name).stem}]({name})" for name in self.pictures]
        if self.rows:
            left = self.heading.index("AP") if self.paper else 1
            parts += [format_table(self.heading, [list(row.values()) for row in self.cells], markdown, left)]
        parts += ["\n".join(f"- {note}" for note in self.notes)]
        if markdown:
            parts[0] = f"## {parts[0]}"
            parts += [f"Made on {self.machine}; the runs took {duration(self.seconds)}, added up."]
            parts += ["```sh\n{}\n```\n".format("\n".join(self.commands))]
        return "\n\n".join(parts)

    def publish(self, path: Path) -> None:
        """Write it and print it."""
        markdown = self.write(path)
        print(f"\n{self.text()}\n\nWritten to {markdown}, with its commands, and to {path}")

    def write(self, path: Path) -> Path:
        """Write the JSON, and Markdown beside it, whose path is returned; raises UserError when it cannot."""
        with writing(path):
            write_json(path, asdict(self))
        return write_text(path.with_name(f"{path.name.split('.')[0]}.md"), self.text(markdown=True))
