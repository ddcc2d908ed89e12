"""What the commands print: names on one line, tables, durations and progress."""

import platform
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import TypeVar

from rich.cells import cell_len
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

from stage1_proposals.common.system import bfloat16_instructions

Item = TypeVar("Item")


def one_line(text: str) -> str:
    """Text for the terminal: characters that would break the line, colour it or reverse it become escapes."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def print_lines(*lines: str) -> None:
    """Print each of the lines as `one_line`."""
    for line in lines:
        print(one_line(line))


def duration(seconds: float) -> str:
    """`48 s`, `12 min`, `3 h 05 min`."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60:02d} min"


def format_table(heading: Sequence[str], rows: Sequence[Sequence[str]], markdown: bool = False, left: int = 1) -> str:
    """A table as text in columns, of which the first `left` are flush left and the others right; or as Markdown."""
    if markdown:
        rule = ["---"] * left + ["---:"] * (len(heading) - left)
        return "\n".join(f"| {' | '.join(row)} |" for row in (heading, rule, *rows))
    widths = [max(map(cell_len, column)) for column in zip(heading, *rows, strict=True)]  # a Han character takes two

    def line(row: Sequence[str]) -> str:
        gaps = [" " * (width - cell_len(cell)) for cell, width in zip(row, widths, strict=True)]
        cells = [cell + gap if i < left else gap + cell for i, (cell, gap) in enumerate(zip(row, gaps, strict=True))]
        return "  ".join(cells)

    return "\n".join(map(line, (heading, *rows)))


def describe_machine(device: str) -> str:
    """Processor or GPU, and the versions that numbers and speed depend on."""
    import torch

    info = Path("/proc/cpuinfo")
    models = [line.split(":")[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")]
    cpu = models[0] if models else platform.processor()
    instructions = [torch.backends.cpu.get_cpu_capability(), *(name.upper() for name in bfloat16_instructions())]
    name = torch.cuda.get_device_name() if device == "cuda" else f"{cpu} ({', '.join(instructions)})"
    libraries = ", ".join(f"{package} {version(package)}" for package in ("torch", "timm", "ray"))
    return f"{name}; Python {platform.python_version()}, {libraries}"


class SpeedColumn(ProgressColumn):
    """`12.3 images/s`."""

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text(f"{speed:.1f} {task.fields['unit']}/s" if speed else "")


@contextmanager
def progress(description: str, unit: str, total: int | None = None) -> Iterator[Callable[[int], None]]:
    """A progress bar on stderr with speed and time left; nothing is shown when stderr is no terminal.

    The bar appears with the first item done, so that an error before that stands alone.

    Args:
        description: what is being done.
        unit: what is counted, plural.
        total: how many there are; None: unknown.

    Yields:
        A function to call with numbers of items done; a call with 0, before the first item, starts the clock.
    """
    console = Console(stderr=True)
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), SpeedColumn(), TimeRemainingColumn()
    bar = Progress(*columns, console=console, disable=not console.is_terminal)
    task = bar.add_task(description, total=total, unit=unit)

    def advance(count: int) -> None:
        if count:
            bar.start()  # does nothing when the bar is shown already
        bar.advance(task, count)

    try:
        yield advance
    finally:
        bar.stop()


def track(description: str, unit: str, items: Iterable[Item], total: int | None = None) -> Iterator[Item]:
    """The items, with a progress bar as of `progress`."""
    with progress(description, unit, total) as advance:
        advance(0)
        for item in items:
            yield item
            advance(1)
