"""The six AP scores of COCO as text."""

from collections.abc import Mapping

AP_NAMES = ("AP", "AP50", "AP75", "AP_S", "AP_M", "AP_L")


def format_scores(scores: Mapping[str, float]) -> str:
    """Two lines: the names, and the values in percent; `-` where there are no objects of that size."""
    return "\n".join("".join(cell.rjust(7) for cell in row) for row in (AP_NAMES, _percents(scores)))


def score_table(rows: Mapping[str, Mapping[str, float]], heading: str) -> str:
    """A Markdown table of several runs' scores in percent, one line per run; `heading` tops the runs' names."""
    lines = [[heading, *AP_NAMES], ["---", *["---:"] * len(AP_NAMES)]]
    lines += [[name, *_percents(scores)] for name, scores in rows.items()]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _percents(scores: Mapping[str, float]) -> list[str]:
    return ["-" if scores[name] < 0 else f"{100 * scores[name]:.1f}" for name in AP_NAMES]
