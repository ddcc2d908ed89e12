"""The record of a finished table or figure: its content and all that is needed to repeat it, as JSON and Markdown."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Self

from pydantic import Field, TypeAdapter
from pydantic.dataclasses import dataclass

from pipelines.console import duration, format_table
from pipelines.experiments.execute import Workspace
from pipelines.experiments.plan import Run
from stage1_proposals.common.files import write_json, write_text, writing


@dataclass(frozen=True)
class ExperimentRecord:
    """A table (`heading`, `rows`, `paper`) or a figure (`pictures`) of the paper.

    Attributes:
        runs: directories, relative to the workspace.
        commands: of the runs, and of the drawings.
        machine: device and versions that the runs ran on.
        seconds: that the runs took, added up.
        rows, paper: our cells and the paper's, in percent, under the same heading.
        pictures: file names, beside the record.
    """

    title: str
    number: int
    scale: str
    notes: list[str]
    runs: list[str]
    commands: list[str]
    machine: str
    seconds: float
    heading: list[str] = Field(default_factory=list)
    rows: list[list[str]] = Field(default_factory=list)
    paper: list[list[str]] = Field(default_factory=list)
    pictures: list[str] = Field(default_factory=list)

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read the JSON.

        Raises:
            OSError: it cannot be read.
            ValueError: it is not a record.
        """
        return TypeAdapter(cls).validate_json(path.read_bytes())

    @property
    def name(self) -> str:
        return f"{'Figure' if self.pictures else 'Table'} {self.number}, at {self.scale} scale: {self.title}"

    @property
    def cells(self) -> list[dict[str, str]]:
        """Rows of our numbers by column, each with the paper's in parentheses."""
        names = self.heading.index("AP")  # the scores of every table begin with it
        beside = [
            [*ours[:names], *(f"{cell} ({printed})" for cell, printed in zip(ours[names:], paper[names:], strict=True))]
            for ours, paper in zip(self.rows, self.paper, strict=True)
        ]
        return [dict(zip(self.heading, row, strict=True)) for row in beside]

    def table(self, markdown: bool) -> str:
        rows = [list(row.values()) for row in self.cells]
        return format_table(self.heading, rows, markdown, left=self.heading.index("AP"))

    def text(self) -> str:
        """As printed in the terminal."""
        return "\n\n".join([self._heading, *([] if self.pictures else [self.table(markdown=False)]), self._notes])

    def markdown(self) -> str:
        """With the commands."""
        pictures = "\n\n".join(f"![{Path(name).stem}]({name})" for name in self.pictures)
        made = f"Made on {self.machine}; the runs took {duration(self.seconds)}, added up."
        commands = "```sh\n{}\n```\n".format("\n".join(self.commands))
        body = pictures or self.table(markdown=True)
        return "\n\n".join([f"## {self._heading}", body, self._notes, made, commands])

    @property
    def _heading(self) -> str:
        return self.name if self.pictures else f"{self.name} (in percent; the paper's in parentheses)"

    @property
    def _notes(self) -> str:
        return "\n".join(f"- {note}" for note in self.notes)

    def write(self, markdown: Path, suffix: str = ".json") -> None:
        """Write Markdown, and JSON beside it with another suffix.

        Raises:
            UserError: they cannot be written.
        """
        with writing(markdown):
            write_json(markdown.with_suffix(suffix), asdict(self))
            write_text(markdown, self.markdown())


def run_directories(runs: Sequence[Run], workspace: Workspace) -> list[str]:
    """Directories of runs relative to the workspace, without datasets that have their own folder."""
    return [str(workspace.directory(run).relative_to(workspace.root)) for run in runs if run.output]
