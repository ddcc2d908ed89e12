"""The record of a finished table or figure: its content and all that is needed to repeat it, as JSON and Markdown."""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Self

from pydantic import TypeAdapter

from pipelines.console import duration, format_table
from stage1_proposals.common.files import write_json, write_text, writing


@dataclass(frozen=True)
class ExperimentRecord:
    """A table (`heading`, `rows`, `paper`) or a figure (`pictures`) of the paper."""

    title: str
    number: int
    scale: str
    notes: list[str]
    runs: list[str]  # directories, relative to that of the scale
    commands: list[str]  # of the runs, and of the drawings
    machine: str  # device and versions that the runs ran on
    seconds: float  # that the runs took, added up
    heading: list[str] = field(default_factory=list)
    rows: list[list[str]] = field(default_factory=list)  # ours and the paper's, in percent, under the same heading
    paper: list[list[str]] = field(default_factory=list)
    pictures: list[str] = field(default_factory=list)  # file names, beside the record

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
        return f"{'Figure' if self.pictures else 'Table'} {self.number}, at {self.scale} scale: {self.title}"

    @property
    def cells(self) -> list[dict[str, str]]:
        """Rows of our numbers by column, each with the paper's in parentheses."""
        names = self.heading.index("AP")  # the scores of every table begin with it
        return [
            dict(zip(self.heading, [*ours[:names], *map("{} ({})".format, ours[names:], paper[names:])], strict=True))
            for ours, paper in zip(self.rows, self.paper, strict=True)
        ]

    def text(self, markdown: bool = False) -> str:
        """As printed in the terminal; or as Markdown, with pictures and commands."""
        parts = [self.name if self.pictures else f"{self.name} (in percent; the paper's in parentheses)"]
        if not self.pictures:
            rows = [list(row.values()) for row in self.cells]
            parts += [format_table(self.heading, rows, markdown, left=self.heading.index("AP"))]
        elif markdown:
            parts += [f"![{Path(name).stem}]({name})" for name in self.pictures]
        parts += ["\n".join(f"- {note}" for note in self.notes)]
        if markdown:
            parts[0] = f"## {parts[0]}"
            parts += [f"Made on {self.machine}; the runs took {duration(self.seconds)}, added up."]
            parts += ["```sh\n{}\n```\n".format("\n".join(self.commands))]
        return "\n\n".join(parts)

    def write(self, path: Path) -> Path:
        """Write the JSON, and Markdown beside it, whose path is returned; raises UserError when it cannot."""
        with writing(path):
            write_json(path, asdict(self))
        return write_text(path.with_name(f"{path.name.split('.')[0]}.md"), self.text(markdown=True))
