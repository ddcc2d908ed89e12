"""Tables as text in columns, or as Markdown."""

from collections.abc import Sequence


def format_table(heading: Sequence[str], rows: Sequence[Sequence[str]], markdown: bool, left: int) -> str:
    """Text in columns, the first `left` of them flush left and the others right; or Markdown."""
    if markdown:
        rule = ["---"] * left + ["---:"] * (len(heading) - left)
        return "\n".join(f"| {' | '.join(row)} |" for row in (heading, rule, *rows))
    widths = [max(map(len, column)) for column in zip(heading, *rows, strict=True)]

    def line(row: Sequence[str]) -> str:
        sized = list(zip(row, widths, strict=True))
        return "  ".join([cell.ljust(n) for cell, n in sized[:left]] + [cell.rjust(n) for cell, n in sized[left:]])

    return "\n".join(map(line, (heading, *rows)))
